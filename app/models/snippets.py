"""Python that rebuilds a view with the public API, to take along."""

from __future__ import annotations

from dataclasses import fields

from pidlearn.viewer import View

__all__ = ["broken", "more_steps", "pictures", "residual", "system", "view_text", "watch"]


def view_text(view: View) -> str:
    """The view as a call of `View` that names what is not as usual."""
    usual = View()
    said = [
        f"{f.name}={getattr(view, f.name)!r}" for f in fields(View) if getattr(view, f.name) != getattr(usual, f.name)
    ]
    return f"View({', '.join(said)})"


def watch(preset: str, view: View) -> str:
    """Of the page Watch."""
    return f'''"""One call of a student beside its teacher's solver: {preset}."""

from pathlib import Path

import pidlearn as pid
from pidlearn.viewer import View

teacher = pid.toy("{preset}")
shipped = Path("{preset}.safetensors")  # the student that the app shows, if it lies here; else train one: 20 s
result = pid.load(shipped, teacher) if shipped.exists() else pid.distill(teacher, seed=0)
print(result.evaluate())

scene = pid.watch(teacher, result.student, view={view_text(view)})
scene.save("{preset}.html")  # in a notebook, `scene` alone shows it
'''


def residual(preset: str, view: View) -> str:
    """Of the page Residual."""
    return f'''"""The residual of Eq. 9 along a student's paths: {preset}."""

from pathlib import Path

import torch

import pidlearn as pid
from pidlearn.viewer import View

teacher = pid.toy("{preset}")
shipped = Path("{preset}.safetensors")
result = pid.load(shipped, teacher) if shipped.exists() else pid.distill(teacher, seed=0)
ode, grid = pid.DenoiserODE(teacher), pid.karras_grid(250)
z = 80 * torch.randn(150, 2, generator=torch.Generator().manual_seed(7))


def length(a, b):
    return (a - b).square().mean(1).sqrt()


with torch.no_grad():
    rows = [pid.pid_loss(result.student, ode, z, grid, torch.full((150,), i), distance=length) for i in range(249)]
residual = torch.stack(rows)  # (249, 150), a row a grid point
print("rms residual at t = 80, 1, 0.002:", residual[[0, 144, -1]].square().mean(1).sqrt())

pid.watch(teacher, result.student, starts=z, view={view_text(view)}).save("{preset}.html")
'''


def more_steps(preset: str, view: View) -> str:
    """Of the page More steps."""
    return f'''"""One call of the student, then Heun steps of the teacher: {preset}."""

from pathlib import Path

import torch

import pidlearn as pid

teacher = pid.toy("{preset}")
shipped = Path("{preset}.safetensors")
student = (pid.load(shipped) if shipped.exists() else pid.distill(teacher, seed=0)).student
ode, t_star, k = pid.DenoiserODE(teacher), pid.karras_grid(61)[{view.handover}].item(), {view.steps}
z = 80 * torch.randn(400, 2, generator=torch.Generator().manual_seed(7))
exact = pid.solve(ode, z.double(), [80.0, 0.002], "scipy", rtol=1e-8, atol=1e-8)[-1]
with torch.no_grad():
    jump = student(z, t_star if k else 0.002)
x = pid.solve(ode, jump, pid.karras_grid(k + 1, 0.002, t_star), "heun")[-1] if k else jump
print(f"{{1 + 2 * k}} calls: rmse {{(x - exact).square().mean().sqrt():.4f}} to the exact ODE")
'''


def system(name: str, view: View) -> str:
    """Of the page Any ODE."""
    span = ", t_end=3.0" if name == "lorenz_long" else ""
    return f'''"""A student that solves an ODE for every start: {name}."""

import pidlearn as pid

system = pid.system("{name.removesuffix("_long")}")
result = pid.distill(system{span})  # some 25 s of one core
print(result.evaluate())

result.watch().save("{name}.html")  # in a notebook, `result` alone shows it
'''


def pictures(name: str, view: View) -> str:
    """Of the page Images."""
    teacher = {
        "digits": "pid.train_denoiser(data.digits()[0])",
        "fashion": "pid.SubspaceMixture.fit(data.fashion_mnist()[0])",
    }[name]
    return f'''"""Images from one call of a student: {name}."""

import pidlearn as pid
from pidlearn import data

result = pid.distill({teacher})  # some minutes of one core
print(result.evaluate())

result.watch().save("{name}.html")
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


def broken(data: str, variant: str, view: View) -> str:
    """Of the page Break it."""
    weight = variant.removeprefix("soft-boundary-") if variant.startswith("soft") else None
    chosen = f", boundary_weight={weight}" if weight else CHOICES[variant]
    student = ', pid.Trajectory(pid.nets.MLP(2), sigma_data=teacher.std, boundary="soft")' if weight else ""
    posed = "Eq8(teacher)" if variant == "eq8" else "teacher"
    return f'''"""One choice changed: {variant} on {data}, beside the reference. Some 5 s of one core each."""

import pidlearn as pid
from pidlearn.viewer import View
{EQ8 if variant == "eq8" else ""}
teacher = pid.toy("{data}")
reference = pid.distill(teacher, steps=1500, seed=0)
changed = pid.distill({posed}{student}, steps=1500, seed=0{chosen})
print("reference", reference.evaluate())
print("changed", changed.evaluate())

students = {{"reference": reference.student, "{variant}": changed.student}}
pid.watch(teacher, students, view={view_text(view)}).save("{data}-{variant}.html")
'''
