"""What the pages' code blocks printed, kept between builds: a page that has not changed is not executed again.

A block's output is kept under a hash of its code, of the blocks before it in its session, of all files that such code
reads, and of the installed versions. A session's blocks that were not needed are executed when a later one of it is.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = ["Cache", "fingerprint"]

FOLDERS = ("pidlearn", "app", "benchmarks", "tutorials/_build/blocks", "tests/teachers")
"""What code blocks import and read."""
PACKAGES = ("torch", "numpy", "scipy", "matplotlib", "markdown-exec")
"""What else their output depends on."""

Run = Callable[..., str]


def fingerprint(root: Path, packages: Iterable[str] = PACKAGES) -> str:
    """Return a hash of all that the output of a block can depend on, besides its session's code."""
    digest = hashlib.sha256(" ".join([platform.python_version(), *map(version, packages)]).encode())
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(root)} ".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


class Cache:
    """Runs code blocks, or returns what they printed before.

    Args:
        run: executes one block, (code, session=, **options) -> its output; raises if the block does.
        folder: where outputs are kept.
        state: hash of what blocks depend on besides their session.
    """

    def __init__(self, run: Run, folder: Path, state: str) -> None:
        self.run, self.folder, self.state = run, folder, state
        self.keys: dict[str, str] = {}  # of each session's last block
        self.skipped: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        self.used: set[Path] = set()

    def __call__(self, code: str, session: str | None = None, **options: Any) -> str:
        """Return the output of a block, the next of its session."""
        before = self.keys.get(session, self.state) if session else self.state
        key = hashlib.sha256(f"{before} {session} {code}".encode()).hexdigest()
        path = self.folder / f"{key}.txt"
        self.used.add(path)
        if session:
            self.keys[session] = key
        if path.exists():
            if session:
                self.skipped.setdefault(session, []).append((code, options))
            return path.read_text(encoding="utf-8")
        for earlier, its in self.skipped.pop(session, []) if session else ():
            self.run(earlier, session=session, **its)
        output = self.run(code, session=session, **options)
        self.folder.mkdir(parents=True, exist_ok=True)
        path.write_text(output, encoding="utf-8")
        return output

    def forget_others(self) -> None:
        """Delete what this build has not used."""
        for path in set(self.folder.glob("*.txt")) - self.used:
            path.unlink()
