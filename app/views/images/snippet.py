"""Python that rebuilds a view of the page Images."""

from __future__ import annotations

from dataclasses import replace

from app.shared.snippets import view_call
from pidlearn.viewer import View

__all__ = ["snippet"]

TRAINING = {
    "digits": "result = pid.distill(pid.train_denoiser(data.digits()[0]), seed=0)  # some minutes on one core",
    "clothes": 'result = commands.distill("fashion-mnist")  # the recipe: an hour on one core',
    "fashion": "result = pid.distill(pid.SubspaceMixture.fit(data.fashion_mnist()[0]), seed=0)  # some minutes",
}


def snippet(name: str, count: int, view: View) -> str:
    """Return a script that trains the student and saves the view of ``count`` images as HTML."""
    # The app ships every second frame of the scene that `watch` makes.
    view = replace(view, frame=2 * view.frame)
    return f'''"""Images from one call of a student: {name}."""

from dataclasses import replace

import numpy as np
import torch

import pidlearn as pid
{"from pidlearn.cli import commands" if name == "clothes" else "from pidlearn import data"}
from pidlearn.viewer import Images, View

{TRAINING[name]}
problem = result.problem
print(result.evaluate({64 if name == "clothes" else ""}))

z = 80 * torch.randn({count}, *problem.event_shape, generator=torch.Generator().manual_seed(7))
labels = problem.sample_labels({count}, torch.Generator().manual_seed(0))  # None for a teacher without classes
scene = result.watch(starts=z, view={view_call(view)})
coarse = problem.reference_samples(z, pid.karras_grid(10), labels)[:, 0].clamp(-1, 1)
grey = ((coarse + 1) * 127.5).round().byte().numpy()
rows = {{**scene.panels[0].rows, "Euler-10 endpoint": np.broadcast_to(grey, (61, *grey.shape))}}
scene = replace(scene, panels=[Images("", rows)])
scene.save("{name}.html")  # in a notebook, `scene` as the last line of a cell shows it
'''
