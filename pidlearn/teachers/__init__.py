"""Teachers: third-party networks, and teachers from files or by name, read without executing code in the files."""

from pidlearn.teachers.adapters.diffusers import from_diffusers
from pidlearn.teachers.adapters.flow import from_flow
from pidlearn.teachers.files.official_pid import load_official_student
from pidlearn.teachers.files.safetensors_file import save_teacher
from pidlearn.teachers.loading import import_teacher, load_teacher, published_teachers

__all__ = [
    "from_diffusers",
    "from_flow",
    "import_teacher",
    "load_official_student",
    "load_teacher",
    "published_teachers",
    "save_teacher",
]
