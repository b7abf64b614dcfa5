"""Recipes: TOML files that say which teacher to distill and with which `Config`; see `reading` for their format."""

from pidlearn.recipes.reading import Recipe, names, read
from pidlearn.recipes.teacher import UnfinishedError, load_images, resize, teacher_from_recipe, training_data

__all__ = [
    "Recipe",
    "UnfinishedError",
    "load_images",
    "names",
    "read",
    "resize",
    "teacher_from_recipe",
    "training_data",
]
