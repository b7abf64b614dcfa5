"""Small data sets that are already installed on the machine: nothing is downloaded."""

from pidlearn.data.images import DEBIAN, digits, fashion_mnist, read_idx

__all__ = ["DEBIAN", "digits", "fashion_mnist", "read_idx"]
