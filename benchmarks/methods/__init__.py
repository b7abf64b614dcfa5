"""Every method on the same truth; see ``python -m benchmarks.methods --help``."""
