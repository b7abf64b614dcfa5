"""Students of ordinary differential equations."""
