"""One call of the student, then steps of the teacher's solver."""
