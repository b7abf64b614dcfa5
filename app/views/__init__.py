"""Pages: they lay out, and compute nothing."""
