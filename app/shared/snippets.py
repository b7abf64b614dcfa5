"""Lines that the Python snippets of several pages share."""

from __future__ import annotations

from dataclasses import fields

from pidlearn.viewer import View

__all__ = ["load_or_train", "view_call"]


def view_call(view: View) -> str:
    """Return the view as Python: a call of `View` with the arguments that differ from its defaults."""
    default = View()
    arguments = [
        f"{field.name}={getattr(view, field.name)!r}"
        for field in fields(View)
        if getattr(view, field.name) != getattr(default, field.name)
    ]
    return f"View({', '.join(arguments)})"


def load_or_train(preset: str) -> str:
    """Return the lines that define ``teacher`` and ``result`` of a preset."""
    return f'''teacher = pid.toy("{preset}")
path = Path("{preset}.safetensors")  # the app's student, if you saved it here; otherwise train one (a minute)
result = pid.load(path, teacher) if path.exists() else pid.distill(teacher, seed=0)'''
