"""Data: small sets that are already installed on the machine, and a user's own files. Nothing is downloaded."""

from collections.abc import Callable

from torch import Tensor

from pidlearn.data.files import read_images
from pidlearn.data.images import DEBIAN, digits, fashion_mnist, read_idx

__all__ = ["DATA_SETS", "DEBIAN", "digits", "fashion_mnist", "read_idx", "read_images"]

DATA_SETS: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {"digits": digits, "fashion-mnist": fashion_mnist}
"""Images (n, C, R, R) in [-1, 1] and labels (n,) int64, by the names that recipes use."""
