"""Beyond one call: what a student with an equation, and its teacher at hand, can do."""

from pidlearn.refinement.with_teacher import WithTeacher, with_teacher

__all__ = ["WithTeacher", "with_teacher"]
