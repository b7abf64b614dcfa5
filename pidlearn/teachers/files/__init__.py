"""Readers of teacher files, one module per format. None executes anything in a file."""
