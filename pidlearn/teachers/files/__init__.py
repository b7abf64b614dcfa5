"""Readers of checkpoint files. None of them executes anything that a file holds."""
