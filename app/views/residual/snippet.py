"""Python that rebuilds a view of the page Residual."""

from __future__ import annotations

from app.shared.snippets import load_or_train, view_call
from pidlearn.viewer import View

__all__ = ["snippet"]


def snippet(preset: str, view: View) -> str:
    """Return a script that computes the residuals of a student and saves the view as HTML."""
    return f'''"""Residual of Eq. 9 along a student's trajectories, sorted by the error at the endpoint: {preset}."""

from dataclasses import replace
from pathlib import Path

import torch

import pidlearn as pid
from pidlearn.viewer import Heat, View

{load_or_train(preset)}
student, ode, grid = result.student, pid.DenoiserODE(teacher), pid.karras_grid(250)
z = 80 * torch.randn(400, 2, generator=torch.Generator().manual_seed(7))[:150]
scene = pid.watch(teacher, student, starts=z, view={view_call(view)})


def rms_distance(a, b):
    return (a - b).square().mean(1).sqrt()


with torch.no_grad():
    # The grid point next to each frame of the scene, and the residual there.
    indices = [(grid[:-1] - t).abs().argmin() for t in scene.times]
    rows = [pid.pid_loss(student, ode, z, grid, i.expand(150), distance=rms_distance) for i in indices]
    order = rms_distance(student(z, grid[-1]), pid.solve(ode, z, grid)[-1]).argsort()
residual = torch.stack(rows, 1)[order].log10()  # (150, 61): one row per sample, smallest error first
limits = residual.quantile(0.02).item(), residual.quantile(0.995).item()

heat = Heat("Residual of Eq. 9 (bright = large)", residual.numpy(), order.numpy(), limits, log10=True)
scene = replace(scene, panels=[*scene.panels, heat])
scene.save("{preset}-residual.html")  # in a notebook, `scene` as the last line of a cell shows it
'''
