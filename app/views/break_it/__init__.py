"""One setting of the recipe changed."""
