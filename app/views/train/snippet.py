"""Python that repeats a training job of the page Train."""

from __future__ import annotations

import ast

from app.shared.snippets import view_call
from app.training.expression import InitialValueProblem, is_constant
from app.training.job import TrainingJob
from pidlearn.viewer import View

__all__ = ["REPLAY", "snippet"]


REPLAY = '''"""Where a student's samples are while it is trained."""

import torch

import pidlearn as pid

teacher = pid.toy("ring")
z = 80 * torch.randn(400, 2, generator=torch.Generator().manual_seed(7))[:250]
exact = pid.solve(pid.DenoiserODE(teacher), z.double(), pid.karras_grid(250), "scipy")[-1]

run = pid.steps(teacher, seed=0)
for step in run:
    if step.number in (10, 100, 1000, run.config.steps):
        with torch.no_grad():
            error = (run.student(z, 0.002) - exact).square().mean().sqrt()
        print(f"step {step.number:,}: RMSE {error:.3f}")
'''
"""A script that trains the student of the recorded training again."""


def snippet(job: TrainingJob, view: View) -> str:
    """Return a script that trains the same student, and saves it and the view."""
    arguments = "".join(f", {name}={value!r}" for name, value in job.settings.items())
    imports, scene = "", f"result.watch(view={view_call(view)})"
    if job.kind in ("preset", "system"):
        teacher = f'teacher = pid.{"toy" if job.kind == "preset" else "system"}("{job.teacher}")'
    elif job.kind == "points":
        imports = "from dataclasses import replace\n\n"
        scene = f"replace({scene}, modes=False)"  # the Gaussians smooth the points: they overlap, and are not modes
        means, weights, std = job.teacher
        equal = max(weights) - min(weights) < 1e-12
        rows = ", ".join(f"({x:.4g}, {y:.4g})" for x, y in means)
        shares = "" if equal else f", [{', '.join(f'{w:.4g}' for w in weights)}]"
        teacher = "# The points, scaled to mean 0 and standard deviation 0.7, as a mixture of Gaussians.\n"
        teacher += f"teacher = pid.GaussianMixture([{rows}], {std**2:.4g}{shares})"
    else:
        imports, teacher = "import torch\n\n", _system(job.teacher)
    return f'''"""{job.title}: training a student."""

{imports}import pidlearn as pid
from pidlearn.viewer import View

{teacher}
result = pid.distill(teacher, steps={job.steps}{arguments})
print(result.evaluate())

result.save("student.safetensors")
{scene}.save("student.html")  # in a notebook, `result` as the last line of a cell shows it
'''


class TorchFunctions(ast.NodeTransformer):
    """Replace functions by those of torch."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Replace sin(x) by torch.sin(x)."""
        self.generic_visit(node)
        return ast.Call(ast.Attribute(ast.Name("torch"), ast.unparse(node.func)), node.args, [])


def _system(problem: InitialValueProblem) -> str:
    """Return the lines that define f and ``teacher``."""
    names = tuple(problem.fields)
    derivatives = []
    for text in problem.fields.values():
        code = ast.unparse(TorchFunctions().visit(ast.parse(text, mode="eval").body))
        derivatives.append(f"torch.full_like({names[0]}, {code})" if is_constant(text) else code)
    low, high = zip(*problem.box.values(), strict=True)
    return f"""
def f(state, t):
    {", ".join(names)}{"," * (len(names) == 1)} = state.unbind(1)
    return torch.stack([{", ".join(derivatives)}], 1)


teacher = pid.System(f, {low!r}, {high!r}, {problem.span[0]!r}, {problem.span[1]!r}, {names!r})"""
