"""Python that rebuilds a view of the page Break it."""

from __future__ import annotations

from app.shared.snippets import view_call
from app.views.break_it.model import BASES
from pidlearn.viewer import View

__all__ = ["snippet"]

ARGUMENTS = {
    "reference": "",
    "eq8": "",
    "teacher-gradient": ", stop_gradient=False",
    "linear-grid": ', spacing="linear"',
    "central": ', derivative="central"',
    "exact": ', derivative="exact"',
    "can": ', derivative="can"',
    "n10-central": ', n=10, derivative="central"',
    "n10-exact": ', n=10, derivative="exact"',
    **{f"n{n}": f", n={n}" for n in (10, 18, 35, 80, 1000)},
}
"""Variant of the ablation: its arguments of `distill`."""

EQ8 = '''

class Eq8(pid.DenoiserODE):
    """The same flow with its residual in the form of Eq. 8: dx/dt against (x - D) / t."""

    def lhs(self, x, dxdt, t):
        return dxdt

    def rhs(self, x, t, class_labels=None):
        return self.velocity(x, t, class_labels)


'''

SOFT = """torch.manual_seed(0)  # the initial weights that `distill` would draw
student = pid.Trajectory(pid.nets.MLP(2), sigma_data=teacher.std, boundary="soft")
"""


def snippet(data: str, variant: str, view: View) -> str:
    """Return a script that trains the variant and what it is compared with, and saves the view as HTML."""
    weight = variant.removeprefix("soft-boundary-") if variant.startswith("soft") else None
    arguments = f", boundary_weight={weight}" if weight else ARGUMENTS[variant]
    student = ", student" if weight else ""
    problem = "Eq8(teacher)" if variant == "eq8" else "teacher"
    base = BASES.get(variant, "reference")
    return f'''"""One setting changed: {variant} on {data}, compared with {base}. About 5 s per student on one core."""
{
        """
import torch
"""
        if weight
        else ""
    }
import pidlearn as pid
from pidlearn.viewer import View
{EQ8 if variant == "eq8" else ""}
teacher = pid.toy("{data}")
reference = pid.distill(teacher, steps=1500, optimizer="adam", seed=0{ARGUMENTS[base]})
{SOFT if weight else ""}changed = pid.distill({problem}{student}, steps=1500, optimizer="adam", seed=0{arguments})
print("reference", reference.evaluate())
print("changed", changed.evaluate())

students = {{"{base}": reference.student, "{variant}": changed.student}}
scene = pid.watch(teacher, students, view={view_call(view)})
scene.save("{data}-{variant}.html")  # in a notebook, `scene` as the last line of a cell shows it
'''
