"""Teachers of other makes as denoisers."""

from pidlearn.teachers.diffusers import from_diffusers
from pidlearn.teachers.flow import from_flow

__all__ = ["from_diffusers", "from_flow"]
