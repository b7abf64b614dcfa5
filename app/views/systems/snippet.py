"""Python that rebuilds a view of the page Any ODE."""

from __future__ import annotations

from app.shared.snippets import view_call
from pidlearn.viewer import View

__all__ = ["snippet"]


def snippet(name: str, axes: tuple[int, int], view: View) -> str:
    """Return a script that trains the student and saves the view as HTML."""
    longer = "\nsystem = replace(system, t_end=3.0)" if name == "lorenz_long" else ""
    plane = f", axes={axes!r}" if axes != (0, 1) else ""
    return f'''"""A student that solves an ODE from every start: {name}."""
{
        """
from dataclasses import replace
"""
        if longer
        else ""
    }
import pidlearn as pid
from pidlearn.viewer import View

system = pid.system("{name.removesuffix("_long")}"){longer}
result = pid.distill(system, seed=0)  # a minute or two on one core
print(result.evaluate())

scene = result.watch(starts=48{plane}, view={view_call(view)})
scene.save("{name}.html")  # in a notebook, `scene` as the last line of a cell shows it
'''
