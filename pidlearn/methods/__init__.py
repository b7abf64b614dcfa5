"""How a student learns from a teacher: one file per method, and the table of their names."""

from dataclasses import fields, is_dataclass, replace
from typing import Any

from pidlearn.methods.base import NEEDS, USABLE, Batch, Context, Method, Stage
from pidlearn.methods.boot import BOOT, FreeFlow
from pidlearn.methods.consistency import CD, CT, SCM
from pidlearn.methods.corrector import Corrector
from pidlearn.methods.denoising import Denoising
from pidlearn.methods.flow_map import FlowMapping
from pidlearn.methods.pid.method import PID
from pidlearn.methods.progressive import PD
from pidlearn.methods.supervised import DSNO, Endpoint, Reflow
from pidlearn.utils.settings import check_rules
from pidlearn.utils.validation import summary

__all__ = [
    "BOOT",
    "CD",
    "CT",
    "DSNO",
    "METHODS",
    "PD",
    "PID",
    "SCM",
    "Batch",
    "Context",
    "Corrector",
    "Denoising",
    "Endpoint",
    "FlowMapping",
    "FreeFlow",
    "Method",
    "Reflow",
    "Stage",
    "method_of",
    "settings_of",
]

METHODS: dict[str, type[Method]] = {
    "pid": PID,
    "boot": BOOT,
    "freeflow": FreeFlow,
    "cd": CD,
    "ct": CT,
    "scm": SCM,
    "pd": PD,
    "endpoint": Endpoint,
    "dsno": DSNO,
    "reflow": Reflow,
    "flow_map": FlowMapping,
    "corrector": Corrector,
}
"""The methods of `pidlearn.distill` by name. (`Denoising` trains teachers: see `pidlearn.train_denoiser`.)"""

Corrector.methods = METHODS


def method_of(method: str | Method, **settings: Any) -> Method:
    """The method of that name, or the method itself, with these settings replaced; also those of its components.

    Raises:
        ValueError: an unknown name, settings that break the method's rules, or needs that `distill` cannot meet.
        TypeError: a method that is not a dataclass, or that needs settings and gets none.
    """
    known = isinstance(method, Method) or (isinstance(method, str) and method in METHODS)
    if not known:
        raise ValueError(
            f"got method = {method!r}, but method must be one of {sorted(METHODS)} or a pidlearn.methods.Method"
        )
    # Which components a method has depends on its own settings, so these come first.
    kind = METHODS[method] if isinstance(method, str) else type(method)
    own = {name: settings.pop(name) for name in settings_of(kind) if name in settings} if settings else {}
    try:
        instance: Any = METHODS[method](**own) if isinstance(method, str) else method
    except TypeError as error:
        raise TypeError(
            f"got method = {method!r} without settings that it needs ({error}): pass them by name"
        ) from error
    in_class = vars(kind)
    # A subclass inherits the fields of a dataclass, but new ones would be ignored.
    if not is_dataclass(instance) or ("__dataclass_fields__" not in in_class and in_class.get("__annotations__")):
        raise TypeError(f"{kind.__name__} is not a dataclass, but a method must be: add @dataclass above its class")
    if own and not isinstance(method, str):
        instance = replace(instance, **own)  # type: ignore[type-var]  # is_dataclass lets classes pass, too
    check_rules(instance, instance.rules())
    for component in instance.components()[1:]:
        method_of(component)
    checked: Method = instance
    if settings:
        return method_of(checked.with_settings(settings))
    name = kind.__name__
    if checked.needs not in NEEDS:
        raise ValueError(f"got {name}.needs = {checked.needs!r}, but it must be one of {NEEDS}: correct the class")
    if not set(checked.uses) <= set(USABLE):
        raise ValueError(f"got {name}.uses = {checked.uses!r}, but it holds some of {USABLE}: correct the class")
    return checked


def settings_of(method: Method | type[Method]) -> list[str]:
    """The names of a method's settings: the fields of its dataclass that can be set.

    Raises:
        TypeError: anything but a dataclass.
    """
    if not is_dataclass(method):
        raise TypeError(f"got {summary(method)}, but settings_of takes a method or its class: add @dataclass above it")
    return [field.name for field in fields(method) if field.init]
