"""Python that rebuilds a view of the page Methods."""

from __future__ import annotations

from app.shared.snippets import view_call
from app.views.methods.model import METHODS, TOY
from pidlearn.viewer import View

__all__ = ["snippet"]


def snippet(methods: tuple[str, str], calls: int, view: View) -> str:
    """Return a script that trains both students with their default settings, and saves the view as HTML."""
    lines = [
        f'    "{METHODS[name].label}": pid.distill(teacher, seed=0{METHODS[name].call}),'
        for name in dict.fromkeys(methods)
    ]
    several = (
        f"""
for name, result in results.items():
    try:
        print(name, "with {calls} calls:", result.evaluate(calls={calls})["energy"])
    except ValueError as error:  # a student of one call
        print(name, error)
"""
        if calls > 1
        else ""
    )
    return f'''"""Two methods on {TOY}, with their default settings. About a minute per student on one core."""

import pidlearn as pid
from pidlearn.viewer import View

teacher = pid.toy("{TOY}")
results = {{
{chr(10).join(lines)}
}}
for name, result in results.items():
    print(name, result.evaluate(), sep="\\n")
{several}
students = {{name: result.student for name, result in results.items()}}
scene = pid.watch(teacher, students, view={view_call(view)})
scene.save("{TOY}-methods.html")  # in a notebook, `scene` as the last line of a cell shows it
'''
