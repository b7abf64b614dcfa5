"""What lets PID learn faster: see `__main__`."""
