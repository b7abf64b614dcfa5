"""Teacher and student from the same noise."""
