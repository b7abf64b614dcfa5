"""Python that rebuilds a view with the public API, to take along."""

from __future__ import annotations

from dataclasses import fields, replace

from app.models.broken import BASES
from pidlearn.viewer import View

__all__ = ["broken", "more_steps", "pictures", "residual", "system", "view_text", "watch"]


def view_text(view: View) -> str:
    """The view as a call of `View` that names what is not as usual."""
    usual = View()
    said = [
        f"{f.name}={getattr(view, f.name)!r}" for f in fields(View) if getattr(view, f.name) != getattr(usual, f.name)
    ]
    return f"View({', '.join(said)})"


def _taught(preset: str) -> str:
    """Lines that get teacher and result of a preset."""
    return f'''teacher = pid.toy("{preset}")
shipped = Path("{preset}.safetensors")  # the student that the app shows, if it lies here; else train one: 20 s
result = pid.load(shipped, teacher) if shipped.exists() else pid.distill(teacher, seed=0)'''


def watch(preset: str, view: View) -> str:
    """Of the page Watch."""
    return f'''"""One call of a student beside its teacher's solver: {preset}."""

from pathlib import Path

import pidlearn as pid
from pidlearn.viewer import View

{_taught(preset)}
print(result.evaluate())

scene = pid.watch(teacher, result.student, view={view_text(view)})
scene.save("{preset}.html")  # in a notebook, `scene` alone shows it
'''


def residual(preset: str, view: View) -> str:
    """Of the page Residual."""
    return f'''"""The residual of Eq. 9 along a student's paths, sorted by the error at the end: {preset}."""

from dataclasses import replace
from pathlib import Path

import torch

import pidlearn as pid
from pidlearn.viewer import Heat, View

{_taught(preset)}
student, ode, grid = result.student, pid.DenoiserODE(teacher), pid.karras_grid(250)
z = 80 * torch.randn(400, 2, generator=torch.Generator().manual_seed(7))[:150]
scene = pid.watch(teacher, student, starts=z, view={view_text(view)})


def length(a, b):
    return (a - b).square().mean(1).sqrt()


with torch.no_grad():
    at = [(grid[:-1] - t).abs().argmin() for t in scene.times]
    rows = [pid.pid_loss(student, ode, z, grid, i.expand(150), distance=length) for i in at]
    order = length(student(z, grid[-1]), pid.solve(ode, z, grid)[-1]).argsort()
residual = torch.stack(rows, 1)[order].log10()  # (150, 61): a row a sample, the smallest error first
limits = residual.quantile(0.02).item(), residual.quantile(0.995).item()

heat = Heat("Residual of Eq. 9, dark to bright", residual.numpy(), order.numpy(), limits)
scene = replace(scene, panels=[*scene.panels, heat])
scene.save("{preset}-residual.html")  # in a notebook, `scene` alone shows it
'''


def more_steps(preset: str, view: View) -> str:
    """Of the page More steps."""
    return f'''"""One call of the student, then Heun steps of the teacher: {preset}."""

from dataclasses import replace
from pathlib import Path

import torch

import pidlearn as pid
from pidlearn.viewer import View

{_taught(preset)}
student, ode = result.student, pid.DenoiserODE(teacher)
t_star, k = pid.karras_grid(61)[{view.handover}].item(), {view.steps}
z = 80 * torch.randn(400, 2, generator=torch.Generator().manual_seed(7))
exact = pid.solve(ode, z.double(), [80.0, 0.002], "scipy", rtol=1e-8, atol=1e-8)[-1]
with torch.no_grad():
    jump = student(z, t_star if k else 0.002)
x = pid.solve(ode, jump, pid.karras_grid(k + 1, 0.002, t_star), "heun")[-1] if k else jump
print(f"{{1 + 2 * k}} calls: rmse {{(x - exact).square().mean().sqrt():.4f}} to the exact ODE")

scene = pid.watch(teacher, student, starts=z, view={view_text(view)})
scene = replace(scene, panels=[replace(scene.panels[0], handover=True)])
scene.save("{preset}-steps.html")  # in a notebook, `scene` alone shows it
'''


def system(name: str, axes: tuple[int, int], view: View) -> str:
    """Of the page Any ODE."""
    longer = "\nsystem = replace(system, t_end=3.0)" if name == "lorenz_long" else ""
    plane = f", axes={axes!r}" if axes != (0, 1) else ""
    return f'''"""A student that solves an ODE for every start: {name}."""
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
result = pid.distill(system, seed=0)  # some 25 s of one core
print(result.evaluate())

scene = result.watch(starts=48{plane}, view={view_text(view)})
scene.save("{name}.html")  # in a notebook, `scene` alone shows it
'''


def pictures(name: str, count: int, view: View) -> str:
    """Of the page Images."""
    made = {
        "digits": "result = pid.distill(pid.train_denoiser(data.digits()[0]), seed=0)  # some minutes of one core",
        "clothes": 'result = commands.distill("fashion-mnist")  # the recipe: an hour of one core',
        "fashion": "result = pid.distill(pid.SubspaceMixture.fit(data.fashion_mnist()[0]), seed=0)  # some minutes",
    }[name]
    # The app ships every second of these frames.
    return f'''"""Images from one call of a student: {name}."""

from dataclasses import replace

import numpy as np
import torch

import pidlearn as pid
from pidlearn import {"commands" if name == "clothes" else "data"}
from pidlearn.viewer import Images, View

{made}
problem = result.problem
print(result.evaluate({64 if name == "clothes" else ""}))

z = 80 * torch.randn({count}, *problem.event_shape, generator=torch.Generator().manual_seed(7))
labels = problem.draw_labels({count}, torch.Generator().manual_seed(0))  # None for a teacher without classes
scene = result.watch(starts=z, view={view_text(replace(view, frame=2 * view.frame))})
few = problem.reference_ends(z, pid.karras_grid(10), labels)[:, 0].clamp(-1, 1)
grey = ((few + 1) * 127.5).round().byte().numpy()
rows = {{**scene.panels[0].rows, "Euler-10's end": np.broadcast_to(grey, (61, *grey.shape))}}
scene = replace(scene, panels=[Images("", rows)])
scene.save("{name}.html")  # in a notebook, `scene` alone shows it
'''


CHOICES = {
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
"""What `distill` is told for a variant of the ablation."""

EQ8 = '''

class Eq8(pid.DenoiserODE):
    """The same flow, its residual stated as Eq. 8: dx/dt against (x - D) / t."""

    def lhs(self, x, dxdt, t):
        return dxdt

    def rhs(self, x, t, class_labels=None):
        return self.velocity(x, t, class_labels)


'''

SOFT = """torch.manual_seed(0)  # as `distill` draws a student of its own
student = pid.Trajectory(pid.nets.MLP(2), sigma_data=teacher.std, boundary="soft")
"""


def broken(data: str, variant: str, view: View) -> str:
    """Of the page Break it."""
    weight = variant.removeprefix("soft-boundary-") if variant.startswith("soft") else None
    chosen = f", boundary_weight={weight}" if weight else CHOICES[variant]
    student = ", student" if weight else ""
    posed = "Eq8(teacher)" if variant == "eq8" else "teacher"
    base = BASES.get(variant, "reference")
    return f'''"""One choice changed: {variant} on {data}, beside {base}. Some 5 s of one core each."""
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
reference = pid.distill(teacher, steps=1500, seed=0{CHOICES[base]})
{SOFT if weight else ""}changed = pid.distill({posed}{student}, steps=1500, seed=0{chosen})
print("reference", reference.evaluate())
print("changed", changed.evaluate())

students = {{"{base}": reference.student, "{variant}": changed.student}}
scene = pid.watch(teacher, students, view={view_text(view)})
scene.save("{data}-{variant}.html")  # in a notebook, `scene` alone shows it
'''
