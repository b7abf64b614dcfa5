"""One choice of the recipe changed: the student that comes of it, and what the ablation measured."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from app.models import shipped
from pidlearn.viewer import Plane, Scene, View

__all__ = ["BASES", "DATA", "QUESTIONS", "scene", "sentence", "sweep"]

DATA = {"ring": "Ring of 8", "checkerboard": "Checkerboard"}

QUESTIONS: dict[str, tuple[str, dict[str, str]]] = {
    "Equation": (
        "Eq. 8 and Eq. 9 have the same zero. Eq. 8 divides by t, and near t = 0 its residual drowns all else.",
        {"eq8": "Eq. 8 (velocity)"},
    ),
    "Derivative": (
        "The paper prefers differences to exact derivatives. With 250 points they end alike. With 10 only the forward "
        "difference follows Euler's polygon; the others leave it, and end nearer to the ODE than it does.",
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
        "A hard boundary has x(z, T) = z by construction. A soft one must be taught it, by a weight that has to be "
        "found: arrows lead from z to where the student starts.",
        {f"soft-boundary-{w}": f"soft, weight {w}" for w in ("0.1", "0.3", "1", "3", "10", "100")},
    ),
    "Stop-gradient": (
        "The teacher's side of the residual is held constant. Letting the gradient through it costs a pass more.",
        {"teacher-gradient": "gradient through the teacher"},
    ),
    "Grid": (
        "EDM's grid crowds its points near t = 0, where the field changes. Equal steps in t never see it.",
        {"linear-grid": "equal steps in t"},
    ),
    "N": (
        "A student of N points learns Euler's polygon of N points: the fewer, the further that is from the ODE.",
        {"n10": "N = 10", "n18": "N = 18", "n35": "N = 35", "n80": "N = 80", "n1000": "N = 1000"},
    ),
}
"""Question: what is at stake, and the variants that answer it by name."""

BASES = {"n10-central": "n10", "n10-exact": "n10"}
"""What a variant is compared with, where that is not the reference: only one choice may differ."""


@cache
def measured() -> dict[str, Any]:
    """Figures by data and variant; see `app.make_assets.measured`."""
    return json.loads((shipped.ASSETS / "break" / "measured.json").read_text())


def scene(data: str, variant: str, label: str) -> Scene:
    """Two students from the same starts: what the variant is compared with, and the variant."""
    base = BASES.get(variant, "reference")
    usual = f"Reference: Eq. 9, forward, hard, N = {10 if base == 'n10' else 250}"
    titles = {base: usual, variant: f"Changed: {label}"}
    folder = shipped.ASSETS / "break"
    planes = [Plane(said, shipped.network(folder / f"{data}-{name}.safetensors")) for name, said in titles.items()]
    return Scene(f"{DATA[data]}: {label} beside the reference", panels=planes, view=View(), **shipped.arrays(data))


def sentence(data: str, variant: str) -> str:
    """What was measured, with its seeds, and whether it is more than the seeds' own spread."""
    rows = measured()["rows"][data]
    base = BASES.get(variant, "reference")
    new, old, said_of = rows[variant], rows[base], QUESTIONS["N"][1].get(base, "reference")

    def said(name: str) -> str:
        a, b = new["mean"][name], old["mean"][name]
        spread = new["spread"][name] + old["spread"][name]
        verdict = "within the seeds' spread" if abs(a - b) <= spread else "worse" if a > b else "better"
        return f"**{a:.3f}** ± {new['spread'][name]:.3f} ({said_of} {b:.3f} ± {old['spread'][name]:.3f}: {verdict})"

    wrong, usual = 100 * new["mean"]["exact_wrong"], 100 * old["mean"]["exact_wrong"]
    cost = f" A step costs {new['cost']:.1f} times as much." if new["cost"] != 1 else ""
    return (
        f"Error to the exact ODE {said('exact')}; to Euler on its own grid {said('euler')}. "
        f"In another mode than the exact ODE: {wrong:.1f} % ({said_of} {usual:.1f} %).{cost} "
        f"Seeds {' and '.join(new['seeds'])}, {new['mean']['steps']:.0f} steps each."
    )


def sweep(data: str, question: str) -> list[dict[str, Any]]:
    """Both errors of each variant of a question and of the reference, with the seeds' range."""
    rows = measured()["rows"][data]
    names = {"reference": "reference", **QUESTIONS[question][1]}
    kinds = {"exact": "to the exact ODE", "euler": "to Euler on its grid"}
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
