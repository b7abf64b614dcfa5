"""Third-party networks as denoisers."""
