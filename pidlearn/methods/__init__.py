"""How a student learns from a teacher."""
