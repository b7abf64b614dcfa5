"""Peak memory of sampling and evaluation, measured in a process of its own: they work in chunks of bounded size."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

START = """
import resource, warnings
import torch
import pidlearn as pid

warnings.simplefilter("ignore")  # of a teacher with random weights

def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # GiB; Linux counts KiB
"""

UNET = """
network = pid.nets.SongUNet(32, 3, 3, model_channels=16, channel_mult=[1, 2], num_blocks=1)
teacher = pid.nets.Preconditioned(network, 0.5)
teacher.event_shape = (3, 32, 32)
result = pid.distill(teacher, steps=1, batch_size=2, n=5, progress=False)
before = peak()
result.sample(4000)
print(peak() - before)
"""

PATHS = """
network = pid.nets.SongUNet(32, 3, 3, model_channels=16, channel_mult=[1, 2], num_blocks=1)
teacher = pid.nets.Preconditioned(network, 0.5)
student = pid.Trajectory(network, event_shape=(3, 32, 32)).eval()
z = 80 * torch.randn(1200, 3, 32, 32)
before = peak()
student.trajectory(z, torch.tensor([80.0, 0.002]))
with torch.no_grad():
    pid.solve(pid.DenoiserODE(teacher), z, torch.tensor([80.0, 0.002]))
print(peak() - before)
"""

FIELD = """
prior = lambda n, generator=None: torch.rand(n, 64, 64, generator=generator)
network = pid.nets.MLP((64, 64), width=8, depth=1, fourier=4)
before = peak()
pid.distill(
    pid.VelocityODE(lambda x, t: -x), network, prior=prior, t_start=0.0, t_end=1.0, steps=1, batch_size=2, n=5,
    progress=False,
)
print(peak() - before)
"""

HEAT = """
def laplacian(x, t):
    around = torch.nn.functional.pad(x, (1, 1, 1, 1), mode="circular")
    return around[:, 2:, 1:-1] + around[:, :-2, 1:-1] + around[:, 1:-1, 2:] + around[:, 1:-1, :-2] - 4 * x

prior = lambda n, generator=None: torch.rand(n, 32, 32, generator=generator)
options = {"t_start": 0.0, "t_end": 1.0, "steps": 26, "windows": 2, "n": 5, "batch_size": 2, "progress": False}
result = pid.distill(pid.VelocityODE(laplacian), prior=prior, **options)
before = peak()
result.evaluate(1024)
print(peak() - before)
"""


CASES = {
    "4,000 images": (UNET, 0.5),
    "1,024 heat equations": (HEAT, 1.0),
    "paths of 1,200 images": (PATHS, 0.5),
    "an equation on 64 x 64": (FIELD, 1.0),
}
"""Code, and GiB; without chunks 3.5, 3.8, 2.0 and 6.3 were added."""


@pytest.mark.parametrize(("code", "limit"), CASES.values(), ids=CASES)
def test_grows_by_less(code: str, limit: float) -> None:
    done = subprocess.run([sys.executable, "-c", START + code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < limit
