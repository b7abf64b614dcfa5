"""Benchmarks of `pidlearn`, one command per table: its accuracy, its speed, and the effect of each setting."""
