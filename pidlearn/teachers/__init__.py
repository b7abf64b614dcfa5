"""Teachers: third-party networks, and teachers from files or by name, read without executing code in the files."""

from importlib import import_module
from typing import Any

from pidlearn.teachers.adapters.diffusers import from_diffusers
from pidlearn.teachers.adapters.flow import from_flow
from pidlearn.teachers.adapters.network import from_network
from pidlearn.teachers.files.safetensors_file import save_teacher
from pidlearn.teachers.loading import import_teacher, load_teacher, published_teachers

__all__ = [
    "from_diffusers",
    "from_flow",
    "from_network",
    "import_teacher",
    "load_official_student",
    "load_teacher",
    "published_teachers",
    "save_teacher",
]


def __getattr__(name: str) -> Any:
    # The public name of something that is made of teachers' files but is a student, and so lives in a layer above.
    if name == "load_official_student":
        return getattr(import_module("pidlearn.students.official_pid"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
