"""The lessons of the project's site that each page belongs to."""

from __future__ import annotations

__all__ = ["LESSONS", "SITE", "links"]

SITE = "http://127.0.0.1:8000"
"""Where `mkdocs serve` shows the site."""

LESSONS = {
    "denoising": ("1. Denoising is a direction", ("",)),
    "solvers": ("2. Solvers cost calls", ("",)),
    "flow-maps": ("3. The flow map", ("",)),
    "tangent": ("4. The loss is a tangent", ("residual",)),
    "zero-loss": ("5. Zero loss is Euler's method", ("break-it",)),
    "break-it": ("6. Break it", ("break-it",)),
    "errors": ("7. Where it errs", ("residual", "more-steps")),
    "identities": ("8. Three identities", ("methods",)),
    "odes": ("9. Any ODE", ("any-ode", "train")),
    "images": ("10. Images", ("images",)),
}
"""Title of each lesson, and the paths of the app's pages that it leads to; Watch has none."""


def links(page: str) -> str:
    """Return links to the lessons of a page, which its path names, as Markdown."""
    entries = [f"[{title}]({SITE}/learn/{name}/)" for name, (title, pages) in LESSONS.items() if page in pages]
    return f"Lessons: {' · '.join(entries)} (on the project's site, which `mkdocs serve` shows)"
