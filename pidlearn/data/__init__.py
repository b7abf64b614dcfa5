"""Small data sets that are already installed on the machine: nothing is downloaded."""

from collections.abc import Callable

from torch import Tensor

from pidlearn.data.images import DEBIAN, digits, fashion_mnist, read_idx

__all__ = ["DATA_SETS", "DEBIAN", "digits", "fashion_mnist", "read_idx"]

DATA_SETS: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {"digits": digits, "fashion-mnist": fashion_mnist}
"""Images (n, C, R, R) in [-1, 1] and labels (n,) int64, by the names that recipes use."""
