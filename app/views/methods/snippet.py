"""Python that rebuilds a view of the page Methods."""

from __future__ import annotations

from app.shared.snippets import view_call
from app.views.methods.model import METHODS, TOY, calls_of
from pidlearn.viewer import View

__all__ = ["snippet"]


def snippet(methods: tuple[str, str], calls: int, view: View) -> str:
    """Return a script that trains both students with their default settings, and saves the view as HTML."""
    names = list(dict.fromkeys(methods))
    trained = [f'    "{METHODS[name].label}": pid.distill(teacher, seed=0{METHODS[name].call}),' for name in names]
    if calls == 1:
        evaluated = '    print(name, result.evaluate(), sep="\\n")'
        numbers = ""
    else:
        shown = ", ".join(f'"{METHODS[name].label}": {calls_of(name, calls)}' for name in names)
        numbers = f"calls = {{{shown}}}  # of the student alone\n"
        evaluated = '    print(name, result.evaluate(calls=calls[name]), sep="\\n")'
    of_one = "" if calls == 1 else "\n# The scene shows the paths of one call, whatever the numbers of calls above."
    return f'''"""Two methods on {TOY}, with their default settings. Up to three minutes per student on one core."""

import pidlearn as pid
from pidlearn.viewer import View

teacher = pid.toy("{TOY}")
results = {{
{chr(10).join(trained)}
}}
{numbers}for name, result in results.items():
{evaluated}

students = {{name: result.student for name, result in results.items()}}
scene = pid.watch(teacher, students, view={view_call(view)})
scene.save("{TOY}-methods.html")  # in a notebook, `scene` as the last line of a cell shows it{of_one}
'''
