"""`make demo`: distil diffusion models to one step, for a toy density and real images, in about three minutes.

It distils a ring of Gaussians, whose teacher is known in closed form, and scikit-learn's digits, whose teacher it
trains first. It writes one figure and prints one table. All random numbers are seeded.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

import pidlearn as pid
from pidlearn import data
from pidlearn.evaluation import metrics
from pidlearn.viewer import plot


def main() -> None:
    """Train both students, print the table and write the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the figure (default: out)")
    parser.add_argument("--steps", type=int, default=3000, help="training steps of each network (default: 3000)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # small matrices are slower on several threads

    print(
        "A ring of 8 Gaussians. The teacher is exact, and the student learns from noise and the teacher, without data."
    )
    ring = pid.distill(pid.toy("ring"), steps=args.steps, track_error=1024)
    print("Handwritten digits, 8 x 8. First the teacher, a diffusion model, then its student.")
    images, _ = data.digits()
    digits = pid.distill(pid.train_denoiser(images, steps=args.steps), steps=args.steps, track_error=512)

    print(f"\n{table({'ring': ring, 'digits': digits})}\n")
    figure = draw(ring, digits)
    figure.savefig(args.out / "demo.png", dpi=130)
    print(f"Figure: {args.out / 'demo.png'}")


def table(results: dict[str, pid.Result], n: int = 2000) -> str:
    """Compare the samplers with the teacher's Euler-250 from the same noise; returns a Markdown table."""
    lines = [
        "| data | sampler | network calls | error to Euler-250 | wrong mode | µs per sample |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for name, result in results.items():
        problem = result.problem
        assert problem is not None
        z = problem.sample_prior(n, torch.Generator().manual_seed(1))
        reference = problem.reference(z, result.config.grid())[-1]
        samplers: dict[str, tuple[int, Callable[[], Tensor]]] = {
            "teacher, Euler-250": (249, lambda p=problem, z=z: pid.solve(p.ode, z, pid.karras_grid(250))[-1]),
            "teacher, Heun-18": (34, lambda p=problem, z=z: pid.solve(p.ode, z, pid.karras_grid(18), "heun")[-1]),
            "student": (1, lambda s=result.student, z=z: s(z, 0.002)),
        }
        for label, (calls, sample) in samplers.items():
            with torch.no_grad():
                started = time.perf_counter()
                x = sample()
                micros = 1e6 * (time.perf_counter() - started) / n
            wrong = ""
            if isinstance(problem.teacher, pid.GaussianMixture):
                wrong = f"{metrics.wrong_mode_share(x, reference, problem.teacher):.2%}"
            error = f"{metrics.rmse(x, reference):.4f}"
            lines.append(f"| {name} | {label} | {calls} | {error} | {wrong} | {micros:.1f} |")
    return "\n".join(lines)


def draw(ring: pid.Result, digits: pid.Result) -> Figure:
    """Draw the density and paths from the same noise, and below them digits from the same noise."""
    figure = Figure(figsize=(10, 5.7), layout="constrained")
    above, below = cast("tuple[SubFigure, SubFigure]", figure.subfigures(2, 1, height_ratios=[1.75, 1]))
    grid, mixture = ring.config.grid(), pid.toy("ring")
    z = 80 * torch.randn(32, 2, generator=torch.Generator().manual_seed(2))
    left, middle, right = above.subplots(1, 3)
    teacher = pid.solve(pid.DenoiserODE(mixture), z, grid)
    with torch.no_grad():
        student = torch.stack([ring.student(z, t) for t in grid])
        jump = ring.sample(2000, generator=torch.Generator().manual_seed(3))
    for axes in (left, middle, right):
        plot.density(axes, mixture)
    left.set_title("the density", fontsize=10)
    plot.paths(middle, teacher, student, grid, mixture.std)
    middle.set_title("paths from the same noise", fontsize=10)
    right.plot(*jump.T.numpy(), ".", color=plot.STUDENT, ms=1.5, alpha=0.6)
    right.set_title("2,000 samples, one call per sample", fontsize=10)
    problem = digits.problem
    assert problem is not None
    z = problem.sample_prior(14, torch.Generator().manual_seed(4))
    reference = problem.reference(z, digits.config.grid())[-1]
    with torch.no_grad():
        generated = digits.student(z, problem.t_end)
    plot.images(below, {"teacher\n249 calls": reference, "student\n1 call": generated})
    below.suptitle("digits from the same noise", fontsize=10)
    return figure


if __name__ == "__main__":
    main()
