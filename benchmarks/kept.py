"""Tensors that take minutes to solve for, kept in files."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pidlearn.utils.files import write_atomically

__all__ = ["kept"]


def kept(path: Path, solve: Callable[[], Any]) -> Any:
    """Return what ``solve`` returns, tensors or a dict of them: from the file if it exists, which is written if not."""
    if not path.exists():
        file = io.BytesIO()
        torch.save(solve(), file)
        write_atomically(path, file.getvalue())
    return torch.load(path, weights_only=True)
