"""A student of a real image teacher, end to end."""
