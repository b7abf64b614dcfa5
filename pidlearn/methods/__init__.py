"""How a student learns from a teacher: one file per method, and the table of their names."""

from dataclasses import is_dataclass

from pidlearn.methods.base import Batch, Context, Method, Stage
from pidlearn.methods.denoising import Denoising
from pidlearn.methods.pid.method import PID

__all__ = ["METHODS", "PID", "Batch", "Context", "Denoising", "Method", "Stage", "method_of"]

METHODS: dict[str, type[Method]] = {"pid": PID}
"""The methods of `pidlearn.distill` by name. (`Denoising` trains teachers: see `pidlearn.train_denoiser`.)"""


def method_of(method: str | Method) -> Method:
    """The method of that name, or the method itself.

    Raises:
        ValueError: an unknown name.
    """
    known = isinstance(method, Method) or (isinstance(method, str) and method in METHODS)
    if not known:
        raise ValueError(
            f"got method = {method!r}, but method must be one of {sorted(METHODS)} or a pidlearn.methods.Method"
        )
    instance = METHODS[method]() if isinstance(method, str) else method
    own = vars(type(instance))
    # A subclass inherits the fields of a dataclass, but new ones would be ignored.
    if not is_dataclass(instance) or ("__dataclass_fields__" not in own and own.get("__annotations__")):
        raise TypeError(
            f"{type(instance).__name__} is not a dataclass, but a method must be: add @dataclass above its class"
        )
    return instance
