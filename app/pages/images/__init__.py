"""Students of small images."""
