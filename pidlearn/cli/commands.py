"""The commands as Python functions, for scripts and notebooks: ``commands.distill("digits")``."""

from pidlearn.cli.distill import distill
from pidlearn.cli.evaluate import evaluate
from pidlearn.cli.sample import sample

__all__ = ["distill", "evaluate", "sample"]
