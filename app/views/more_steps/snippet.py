"""Python that rebuilds a view of the page More steps."""

from __future__ import annotations

from app.shared.snippets import load_or_train, view_call
from pidlearn.viewer import View

__all__ = ["snippet"]


def snippet(preset: str, view: View) -> str:
    """Return a script that measures the handover of the view, and saves the view as HTML."""
    return f'''"""One call of the student, then Heun steps of the teacher: {preset}."""

from dataclasses import replace
from pathlib import Path

import torch

import pidlearn as pid
from pidlearn.viewer import View

{load_or_train(preset)}
student, ode = result.student, pid.DenoiserODE(teacher)
t_star, k = pid.karras_grid(61)[{view.handover}].item(), {view.steps}
z = 80 * torch.randn(400, 2, generator=torch.Generator().manual_seed(7))
exact = pid.solve(ode, z.double(), [80.0, 0.002], "scipy", rtol=1e-8, atol=1e-8)[-1]
with torch.no_grad():
    jump = student(z, t_star if k else 0.002)
x = pid.solve(ode, jump, pid.karras_grid(k + 1, 0.002, t_star), "heun")[-1] if k else jump
print(f"{{1 + 2 * k}} calls: RMSE {{(x - exact).square().mean().sqrt():.4f}} to the exact ODE")
x = result.generate(z, calls=1 + 2 * k)  # as many calls; t* and the times of the steps are measured first
print(f"as measured:  {{(x - exact).square().mean().sqrt():.4f}}")

scene = pid.watch(teacher, student, starts=z, view={view_call(view)})
scene = replace(scene, panels=[replace(scene.panels[0], handover=True)])
scene.save("{preset}-steps.html")  # in a notebook, `scene` as the last line of a cell shows it
'''
