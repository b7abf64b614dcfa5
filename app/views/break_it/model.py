"""One setting of the recipe changed: the resulting student, and what the ablation measured."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from app.shared.assets import ASSETS, network, scene_arrays
from pidlearn.viewer import Plane, Scene, View

__all__ = ["BASES", "DATA", "QUESTIONS", "error_rows", "measured", "scene", "sentence"]

DATA = {"ring": "Ring of 8", "checkerboard": "Checkerboard"}

QUESTIONS: dict[str, tuple[str, dict[str, str]]] = {
    "Equation": (
        "Eq. 8 (dx/dt = f) and Eq. 9 (the same times −t) have the same solutions. But f divides by t, so near t = 0 "
        "the residual of Eq. 8 dominates the loss.",
        {"eq8": "Eq. 8 (velocity)"},
    ),
    "Derivative": (
        "The paper prefers finite differences to exact derivatives. With 250 grid points all schemes give similar "
        "students. With 10, only the forward difference reproduces the polygon of Euler's method. Central and exact "
        "derivatives deviate from it and end closer to the exact solution of the ODE, the coupled one farther away.",
        {
            "central": "central, N = 250",
            "exact": "exact (autodiff), N = 250",
            "can": "coupled (CAN), N = 250",
            "n10": "forward, N = 10",
            "n10-central": "central, N = 10",
            "n10-exact": "exact, N = 10",
        },
    ),
    "Boundary": (
        "A hard boundary satisfies x(z, T) = z by construction. A soft one has to learn it from an extra loss term, "
        "whose weight has to be tuned. Arrows lead from z to the point where the student starts.",
        {f"soft-boundary-{w}": f"soft, weight {w}" for w in ("0.1", "0.3", "1", "3", "10", "100")},
    ),
    "Stop-gradient": (
        "The recipe treats the teacher's side of the residual as a constant. Backpropagating through it costs an extra "
        "pass through the teacher.",
        {"teacher-gradient": "gradient through the teacher"},
    ),
    "Grid": (
        "EDM's grid concentrates its points near t = 0, where the field changes fast. With equal steps in t, almost "
        "none of the points are there.",
        {"linear-grid": "equal steps in t"},
    ),
    "N": (
        "A student trained on N grid points learns the polygon of Euler's method with N points. The smaller N is, the "
        "farther that polygon is from the exact solution of the ODE.",
        {"n10": "N = 10", "n18": "N = 18", "n35": "N = 35", "n80": "N = 80", "n1000": "N = 1000"},
    ),
}
"""Setting: what depends on it, and its variants with their labels."""

BASES = {"n10-central": "n10", "n10-exact": "n10"}
"""The variant that another one is compared with, if that is not the reference: the two differ in one setting."""


@cache
def measured() -> dict[str, Any]:
    """Load the ablation's results by data and variant; see `benchmarks.app_assets.ablation`."""
    return json.loads((ASSETS / "break" / "measured.json").read_text())


def scene(data: str, variant: str, label: str) -> Scene:
    """Return two students from the same starts: the one compared with, and the variant."""
    base = BASES.get(variant, "reference")
    reference = f"Reference: Eq. 9, forward, hard, N = {10 if base == 'n10' else 250}"
    titles = {base: reference, variant: f"Changed: {label}"}
    planes = [Plane(title, network(ASSETS / "break" / f"{data}-{name}.safetensors")) for name, title in titles.items()]
    title = f"{DATA[data]}: {label}, compared with the reference"
    return Scene(title, panels=planes, view=View(), **scene_arrays(data))


def sentence(data: str, variant: str) -> str:
    """State the measured errors and whether they differ by more than the seeds do."""
    rows = measured()["rows"][data]
    base = BASES.get(variant, "reference")
    new, old, base_label = rows[variant], rows[base], QUESTIONS["N"][1].get(base, "reference")

    def compare(metric: str) -> str:
        a, b = new["mean"][metric], old["mean"][metric]
        spread = new["spread"][metric] + old["spread"][metric]
        verdict = "within the spread of the seeds" if abs(a - b) <= spread else "worse" if a > b else "better"
        deviation = old["spread"][metric]
        return f"**{a:.3f}** ± {new['spread'][metric]:.3f} ({base_label} {b:.3f} ± {deviation:.3f}: {verdict})"

    wrong, base_wrong = 100 * new["mean"]["exact_wrong"], 100 * old["mean"]["exact_wrong"]
    cost = f" A training step takes {new['cost']:.1f} times as long." if new["cost"] != 1 else ""
    return (
        f"Error to the exact ODE {compare('exact')}; to Euler's method on the student's own grid {compare('euler')}. "
        f"Samples in a different mode than the exact ODE's: {wrong:.1f} % ({base_label} {base_wrong:.1f} %).{cost} "
        f"Mean ± half the range over seeds {' and '.join(new['seeds'])}, {new['mean']['steps']:.0f} steps each."
    )


def error_rows(data: str, question: str) -> list[dict[str, Any]]:
    """Return chart rows with both errors of the reference and of each variant, and their range over the seeds."""
    rows = measured()["rows"][data]
    names = {"reference": "reference", **QUESTIONS[question][1]}
    kinds = {"exact": "to the exact ODE", "euler": "to Euler on its own grid"}
    return [
        {
            "variant": label,
            "error": rows[name]["mean"][key],
            "low": rows[name]["mean"][key] - rows[name]["spread"][key],
            "high": rows[name]["mean"][key] + rows[name]["spread"][key],
            "kind": kind,
        }
        for name, label in names.items()
        for key, kind in kinds.items()
    ]
