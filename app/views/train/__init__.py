"""Train a student in the browser."""
