"""Python that rebuilds a view of the page Watch."""

from __future__ import annotations

from app.shared.snippets import load_or_train, view_call
from pidlearn.viewer import View

__all__ = ["snippet"]


def snippet(preset: str, view: View) -> str:
    """Return a script that loads or trains the student and saves the view as HTML."""
    return f'''"""One call of a student next to its teacher's solver: {preset}."""

from pathlib import Path

import pidlearn as pid
from pidlearn.viewer import View

{load_or_train(preset)}
print(result.evaluate())

scene = pid.watch(teacher, result.student, view={view_call(view)})
scene.save("{preset}.html")  # in a notebook, `scene` as the last line of a cell shows it
'''
