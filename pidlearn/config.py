"""All settings of a distillation in one flat dataclass."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor

from pidlearn.equations.diffusion import Diffusion
from pidlearn.equations.grids import GRIDS, karras_grid
from pidlearn.equations.problem import Problem
from pidlearn.losses.distances import DISTANCES, Distance
from pidlearn.losses.time_sampling import DENSITIES, Density
from pidlearn.losses.weighting import Weight, weights
from pidlearn.methods import METHODS, Method, method_of, settings_of
from pidlearn.methods.base import DEFAULTS, LOW_DIMENSIONAL_ADAM_LR, LOW_DIMENSIONAL_DEFAULTS, USABLE
from pidlearn.methods.pid.method import PIDConfig
from pidlearn.training.execution import ExecutionConfig
from pidlearn.training.optim import OptimizerConfig
from pidlearn.utils.arguments import one_of
from pidlearn.utils.deprecation import rename_arguments
from pidlearn.utils.settings import SIZE, UNSET, Rule, is_number, plain
from pidlearn.utils.validation import resolve

__all__ = ["FUNCTIONS", "NEW_NAMES", "OF_METHODS", "Config", "resolve_settings", "with_overrides"]

INITS = ("teacher", "official", "random")

NEW_NAMES = {"last": "last_interval", "index": "time_sampling"}
"""Fields of the first release that have new names."""

FUNCTIONS = {"derivative", "distance", "optimizer", "spacing", "time_sampling", "weight"}
"""Fields that may be functions, which no file holds."""

OF_METHODS = (*USABLE, *(field.name for field in fields(PIDConfig)))
"""Fields that only some methods use: see `Method.uses`."""


@dataclass(frozen=True)
class Config(PIDConfig, ExecutionConfig, OptimizerConfig):
    """What `distill` minimises, and how; the fields of `OptimizerConfig`, `ExecutionConfig` and `PIDConfig` come first.

    What fits depends on the problem, so the fields marked * stay unset (None) until the run fills them in from the
    method's recipe; ``result.config`` holds all values. Of the inherited fields these are steps, batch_size, lr,
    warmup, optimizer, derivative and stop_gradient.

    Attributes:
        method: name of a method in `pidlearn.methods.METHODS`, or a `pidlearn.methods.Method`.
        n: * number of grid points, per window if there are several.
        t_max: * start of the paths: the prior end of a diffusion, 80.
        t_min: * end of the paths: the sample end of a diffusion, 0.002.
        spacing: karras | linear | log, or a function of n, t_min and t_max that returns a grid; of a diffusion. An ODE
            has equally spaced points.
        rho: parameter of the karras spacing.
        distance: * l2 | l1 | pseudo_huber | adaptive, for images also lpips (-alex, -squeeze, -vgg-average), or a
            function.
        weight: * uniform | snr | karras | sqrt_karras | truncated_snr, or a function of time.
        time_sampling: * how often each grid point is visited: uniform | lognormal, or a function as in
            `pidlearn.sampling`. A network that encodes a start once for all times (`ChebyshevMLP`) visits all of them.
        windows: * number of sub-intervals of the span of an ODE; a diffusion has one.
        init: how a copy of a teacher's U-Net starts. "teacher": it returns the image D(z, t_max), or that image over
            t_max if the network predicts noise. "official": its raw output is taken for the image, as in the official
            code. "random": new weights.
    """

    steps: int = UNSET
    batch_size: int = UNSET
    lr: float = UNSET
    warmup: float = UNSET
    optimizer: str | Callable[[Any, OptimizerConfig], torch.optim.Optimizer] = UNSET
    method: str | Method = "pid"
    n: int = UNSET
    t_max: float = UNSET
    t_min: float = UNSET
    spacing: str | Callable[..., Tensor] = "karras"
    rho: float = 7.0
    distance: str | Distance = UNSET
    weight: str | Weight = UNSET
    time_sampling: str | Density = UNSET
    windows: int = UNSET
    init: str = "teacher"

    EXECUTION = ("micro_batch", "recompute", "compile")
    """Fields that change how a run is computed but not what is computed: a run may be resumed with other values."""

    def __post_init__(self) -> None:
        super().__post_init__()
        named: dict[str, Mapping[str, Any]] = {
            "distance": DISTANCES,
            "weight": weights(1.0),
            "time_sampling": DENSITIES,
            "spacing": GRIDS,
        }
        for name in named.keys() - self.unset():
            resolve(name, getattr(self, name), dict(named[name]))

    def rules(self) -> dict[str, Rule]:
        """The rule for each field, by name."""
        return {
            **super().rules(),
            "method": (
                lambda v: isinstance(v, str | Method),
                f"one of {sorted(METHODS)} or a pidlearn.methods.Method",
            ),
            "n": (lambda v: isinstance(v, int) and 2 <= v < 2**31, "a whole number of grid points, 2 to 2^31 - 1"),
            "t_max": (is_number, "a finite number"),
            "t_min": (is_number, "a finite number"),
            "rho": (lambda v: is_number(v) and v > 0, "a positive number"),
            "windows": SIZE,
            "init": one_of(*INITS),
        }

    @property
    def spacing_function(self) -> Callable[..., Tensor]:
        """The spacing as a function of n, t_min and t_max."""
        if self.spacing == "karras":
            return functools.partial(karras_grid, rho=self.rho)
        spacing: Callable[..., Tensor] = resolve("spacing", self.spacing, GRIDS)
        return spacing

    def grid(self) -> Tensor:
        """The time grid of a diffusion, (n,) float64; for unset fields the defaults of the grid function."""
        given = {name: getattr(self, name) for name in ("n", "t_min", "t_max") if getattr(self, name) is not UNSET}
        return self.spacing_function(**given)

    @property
    def reference_n(self) -> int:
        """Grid points of the teacher's Euler path that students are compared with.

        The run's own n where Euler's path on that grid is what the method learns; else at least 250, since the method
        learns the ODE's solution, or one of another grid.
        """
        # A file stores a user's own method as its repr, which is not a key of METHODS.
        is_name = isinstance(self.method, str) and self.method in METHODS
        method = METHODS[str(self.method)]() if is_name else self.method
        solves_grid = isinstance(method, Method) and method.solves_grid
        return self.n if solves_grid else max(self.n, DEFAULTS["n"])

    def to_dict(self) -> dict[str, Any]:
        """The fields as values that JSON can hold: all but functions.

        A method object is its name in `METHODS` and the settings that it alone has, or else its repr.
        """
        values = {name: value for name, value in vars(self).items() if not callable(value)}
        if not isinstance(method := self.method, Method):
            return values
        name, own = _described(method)
        return {
            **values,
            "method": name or repr(method),
            **{key: value for key, value in own.items() if key not in vars(self) and _is_json(value)},
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Config:
        """The configuration that `to_dict` described; names of the first release are understood."""
        values = {
            NEW_NAMES.get(name, name): method_of(**{key: plain(of_method) for key, of_method in value.items()})
            if isinstance(value, dict)
            else value
            for name, value in values.items()
        }
        return with_overrides(None, values) if values.get("method", "pid") in METHODS else cls(**values)

    def __repr__(self) -> str:
        """One line: the fields that differ from their defaults."""
        changed = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return f"Config({', '.join(f'{name}={_shown(value)}' for name, value in changed.items())})"

    def __getattr__(self, name: str) -> Any:
        # Only reached for attributes that do not exist.
        if name in NEW_NAMES:
            warnings.warn(f"Config.{name} is now called {NEW_NAMES[name]}", DeprecationWarning, stacklevel=2)
            return getattr(self, NEW_NAMES[name])
        raise AttributeError(f"Config has no field {name!r}")


def _described(method: Method) -> tuple[str | None, dict[str, Any]]:
    """Its name in `METHODS` and its settings, a method among them as a dictionary; (None, {}) if it has no name."""
    name = next((name for name, kind in METHODS.items() if type(method) is kind), None)
    settings = {key: getattr(method, key) for key in settings_of(method)} if name else {}
    for key, value in settings.items():
        if isinstance(value, Method):
            of_value, own = _described(value)
            settings[key] = {"method": of_value, **own} if of_value else value
    return name, settings


def _is_json(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_json, value.values()))
    if isinstance(value, tuple | list):
        return all(map(_is_json, value))
    if isinstance(value, float):
        return math.isfinite(value)  # JSON has no other numbers
    return value is None or isinstance(value, bool | int | str)


def _shown(value: Any) -> str:
    """The repr of a value; of a function its name."""
    return str(value.__name__) if callable(value) and hasattr(value, "__name__") else repr(value)


def _accept_old_names(init: Callable[..., None]) -> Callable[..., None]:
    defaults = {field.name: field.default for field in fields(Config)}

    @functools.wraps(init)
    def wrapped(self: Config, *args: Any, **given: Any) -> None:
        for old, new in NEW_NAMES.items():  # `dataclasses.replace(config, last=...)` passes the new field, too
            if old in given and given.get(new, ...) == defaults[new]:
                del given[new]
        init(self, *args, **rename_arguments(given, NEW_NAMES))

    return wrapped


Config.__init__ = _accept_old_names(Config.__init__)  # type: ignore[method-assign]  # the dataclass made it


def with_overrides(config: Config | None, overrides: Mapping[str, Any]) -> Config:
    """The configuration with some settings replaced, in it and in a method that is an object.

    Raises:
        TypeError: a config that is not a `Config`.
        ValueError: an override that is neither a field nor a setting of the method.
    """
    if not isinstance(config, Config | None):
        raise TypeError(f"got config of type {type(config).__name__}, but config must be a pidlearn.Config")
    config, known = config or Config(), [field.name for field in fields(Config)]
    method = overrides.get("method", config.method)
    if isinstance(method, str) and type(config.method) is METHODS.get(method):
        method = config.method  # the same by name: its settings stay
    kind = METHODS.get(method) if isinstance(method, str) else type(method)
    named = settings_of(kind if kind and issubclass(kind, Method) else method_of(method))
    in_config = {name: value for name, value in overrides.items() if name in known}
    if isinstance(method, Method) or overrides.keys() - {*known}:
        method = method_of(method, **{name: plain(overrides[name]) for name in named if name in overrides})
        of_components = {name: part for part in method.components()[1:] for name in settings_of(part)}
        # What a component leaves unset, it takes from the configuration.
        left = {name for name, part in of_components.items() if name in known and getattr(part, name) is UNSET}
        own = of_components.keys() - {*named, *left}
        method = method_of(method, **{name: plain(overrides[name]) for name in own & overrides.keys()})
        named = [*named, *(name for name in of_components if name not in named)]
    if unknown := sorted(overrides.keys() - {*known, *named}):
        close = get_close_matches(unknown[0], [*known, *named], 1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        of_method = ", ".join(name for name in named if name not in known)
        raise ValueError(
            f"unknown setting {', '.join(unknown):.200}{hint}: expected a field of Config ({', '.join(known)})"
            + (f" or of the method {kind.__name__} ({of_method})" if kind and of_method else "")
        )
    return replace(config, **{**in_config, "method": method})


def resolve_settings(problem: Problem, config: Config) -> tuple[Config, Method]:
    """Fill in the unset fields from the method's recipe; returns the configuration, and a configured method.

    Raises:
        ValueError: settings that the method does not use, or that do not fit the problem.
    """
    method, defaults = method_of(config.method), vars(Config())
    shared = []
    for part in method.components():
        config = _with_settings_of(part, config)
        shared += [name for name in settings_of(part) if name in defaults]
    unused = [
        name
        for name in OF_METHODS
        if name not in (*shared, *method.uses) and getattr(config, name) not in (defaults[name], DEFAULTS.get(name))
    ]
    if unused:
        raise ValueError(
            f"got {', '.join(unused)}, which {type(method).__name__} does not use: leave that out or, if it comes with "
            f"the configuration of another run, pass {', '.join(f'{name}={defaults[name]!r}' for name in unused)}"
        )
    given = {name: value for name, value in vars(config).items() if name not in config.unset()}
    recipe = method.defaults(problem, given)
    if unknown := sorted(recipe.keys() - defaults.keys()):
        raise ValueError(f"{type(method).__name__}.defaults returned {unknown}, but must return fields of Config")
    optimizer = {**LOW_DIMENSIONAL_DEFAULTS, **recipe, **given}["optimizer"]
    few: Mapping[str, Any] = {}
    if problem.is_low_dimensional:
        few = LOW_DIMENSIONAL_DEFAULTS if optimizer == "muon" else {"lr": LOW_DIMENSIONAL_ADAM_LR}
    values = {"t_max": problem.t_start, "t_min": problem.t_end, **DEFAULTS, **few, **recipe}
    config = replace(config, **{name: values[name] for name in config.unset() & values.keys()})
    if isinstance(problem, Diffusion) and config.windows != 1:
        raise ValueError(f"got windows = {config.windows}, but a diffusion is solved in one window: leave windows out")
    # Always a copy: the run may keep state in it, and what the user passed stays as it is.
    return config, method.configured(vars(config))


def _with_settings_of(method: Method, config: Config) -> Config:
    """The configuration with the fields that are set in the method.

    A field of the method that has its class's default gives way to a value that is set in the configuration.
    """
    defaults = vars(Config())
    of_class = {field.name: field.default for field in fields(method)}  # type: ignore[arg-type]  # a dataclass, by method_of
    shared = [name for name in settings_of(method) if name in defaults and getattr(method, name) is not UNSET]
    in_config = [name for name in shared if getattr(config, name) not in (defaults[name], getattr(method, name))]
    if twice := [name for name in in_config if getattr(method, name) != of_class[name]]:
        raise ValueError(f"{', '.join(twice)} is set both in the method and in the configuration: set it once")
    return replace(config, **{name: getattr(method, name) for name in shared if name not in in_config})
