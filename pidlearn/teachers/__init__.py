"""Teachers of other makes, and teachers from files and by name: read without executing anything that a file holds."""

from pidlearn.teachers.diffusers import from_diffusers
from pidlearn.teachers.flow import from_flow
from pidlearn.teachers.loading import import_teacher, load_teacher, published_teachers
from pidlearn.teachers.official import load_official_student
from pidlearn.teachers.ours import save_teacher

__all__ = [
    "from_diffusers",
    "from_flow",
    "import_teacher",
    "load_official_student",
    "load_teacher",
    "published_teachers",
    "save_teacher",
]
