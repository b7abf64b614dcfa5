"""One command a table: what `pidlearn` reaches, and what each of its choices is worth."""
