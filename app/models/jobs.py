"""What a visitor asks to be trained, as plain data that travel to the process which trains, and as Python."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import Any

from app.models.expression import InitialValueProblem, depends
from app.models.snippets import view_text
from pidlearn.viewer import View

__all__ = ["DERIVATIVES", "ZOO", "Job", "snippet"]

DERIVATIVES = ("forward", "central", "exact")
ZOO = {
    "pendulum": "Pendulum",
    "lotka_volterra": "Lotka-Volterra",
    "van_der_pol": "Van der Pol",
    "lorenz": "Lorenz",
    "logistic": "Logistic",
    "stiff": "Stiff",
}


@dataclass(frozen=True)
class Job:
    """A training.

    Attributes:
        title: what is trained, in words.
        kind: preset | points | system | equations.
        teacher: of a preset or a system its name; of points means, weights and std; of equations what was read.
        steps: optimiser steps.
        choices: what of the recipe is chosen otherwise: n, derivative, seed.
    """

    title: str
    kind: str
    teacher: Any
    steps: int
    choices: dict[str, Any]


def build(job: Job) -> Any:
    """The teacher, as `pidlearn.distill` takes it. Imports torch."""
    import torch

    import pidlearn as pid

    if job.kind == "preset":
        return pid.toy(job.teacher)
    if job.kind == "system":
        return pid.system(job.teacher)
    if job.kind == "points":
        means, weights, std = job.teacher
        return pid.GaussianMixture(means, std**2, weights)
    problem: InitialValueProblem = job.teacher

    def f(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        named = dict(zip(problem.fields, x.unbind(1), strict=True))
        return torch.stack([x[:, 0] * 0 + d for d in problem.derivatives({**named, "t": t}, torch)], 1)

    low, high = zip(*problem.box.values(), strict=True)
    return pid.System(f, low, high, *problem.span, tuple(problem.fields))


def snippet(job: Job, view: View) -> str:
    """Python that trains the same and looks at it so, with the public API."""
    said = "".join(f", {name}={value!r}" for name, value in job.choices.items())
    imports, scene = "", f"result.watch(view={view_text(view)})"
    if job.kind in ("preset", "system"):
        teacher = f'teacher = pid.{"toy" if job.kind == "preset" else "system"}("{job.teacher}")'
    elif job.kind == "points":
        imports = "from dataclasses import replace\n\n"
        scene = f"replace({scene}, modes=False)"  # of points the Gaussians are a blur, and overlap
        means, weights, std = job.teacher
        equal = max(weights) - min(weights) < 1e-12
        rows = ", ".join(f"({x:.4g}, {y:.4g})" for x, y in means)
        shares = "" if equal else f", [{', '.join(f'{w:.4g}' for w in weights)}]"
        teacher = "# The points, brought to mean 0 and standard deviation 0.7, as a mixture.\n"
        teacher += f"teacher = pid.GaussianMixture([{rows}], {std**2:.4g}{shares})"
    else:
        imports, teacher = "import torch\n\n", _equations(job.teacher)
    return f'''"""{job.title}: a student trained."""

{imports}import pidlearn as pid
from pidlearn.viewer import View

{teacher}
result = pid.distill(teacher, steps={job.steps}{said})
print(result.evaluate())

result.save("student.safetensors")
{scene}.save("student.html")  # in a notebook, `result` alone shows it
'''


class Torch(ast.NodeTransformer):
    """Functions as those of torch."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """sin(x) to torch.sin(x)."""
        self.generic_visit(node)
        return ast.Call(ast.Attribute(ast.Name("torch"), ast.unparse(node.func)), node.args, [])


def _equations(problem: InitialValueProblem) -> str:
    names = tuple(problem.fields)
    lines = []
    for text in problem.fields.values():
        said = ast.unparse(Torch().visit(ast.parse(text, mode="eval").body))
        lines.append(said if depends(text) else f"torch.full_like({names[0]}, {said})")
    low, high = zip(*problem.box.values(), strict=True)
    return f"""
def f(state, t):
    {", ".join(names)}{"," * (len(names) == 1)} = state.unbind(1)
    return torch.stack([{", ".join(lines)}], 1)


teacher = pid.System(f, {low!r}, {high!r}, {problem.span[0]!r}, {problem.span[1]!r}, {names!r})"""
