"""Malformed calls of every public name: each works, or ends in an error of ours that says what to do."""

from __future__ import annotations

import dis
import random
import re
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pytest
import torch
from pidlearn.distance import lpips
from torch import Tensor, nn

import pidlearn as pid
from pidlearn import data, features, images, logs, metrics, recipes, sampling, train, viewer
from pidlearn.methods import Denoising, method_of, settings_of
from pidlearn.students import PiecewiseTrajectory
from tests.tiny import RECIPE
from tests.tiny import teacher as image_teacher

SLICE = 160
"""Calls of the fast test, drawn anew from a fixed seed."""


RING = pid.steps(pid.toy("ring"), steps=1).problem
CONFIG = pid.Config(n=5)


NEW = object()
"""Stands for a new network in each call."""


def nothing(*args: object, **options: object) -> None:
    """A function that takes anything and returns None."""


def malformed(tmp_path: Path) -> list[Any]:
    """Values that are wrong for most arguments, each of another kind."""
    finite = torch.randn(4, 2)
    return [
        *(None, True, -1, 0, 3, 2.5, -0.5, float("nan"), float("inf"), 1e308, 1j, 2**40, 10**400, [2**40]),
        *("", "ab", b"ab", [], {}, (), ["ab"], [None], {"a": 1}, object(), nothing, nn.Linear(2, 2), nn.Linear),
        *(finite.to("meta"), finite.long(), finite.bool(), finite.to(torch.complex64), finite[:0], finite[:2]),
        *(finite[:, :1], finite[0], finite[0, 0], finite / 0, finite.half(), torch.randn(4, 3, 5), finite.to_sparse()),
        *(finite.numpy(), tmp_path, tmp_path / "missing" / "file"),
    ]


def altered(x: Tensor) -> list[Tensor]:
    """A valid tensor in other forms, each wrong in one respect."""
    forms = [x.to("meta"), x.long(), x.bool(), x.half(), x.double(), x.to(torch.complex64), x.to_sparse(), x / 0]
    return [*forms, x[:0], x[:1], x[..., :1], x[None], x.flatten(), torch.cat([x, x])]


@dataclass
class Constant(pid.methods.Method[pid.methods.Context]):
    """A method whose loss is the sum of one weight."""

    def draw(self, context: pid.methods.Context, n: int, generator: torch.Generator) -> pid.methods.Batch:
        return (context.problem.sample_prior(n, generator),)

    def loss(self, context: pid.methods.Context, batch: pid.methods.Batch) -> Tensor:
        assert batch[0] is not None
        return 0 * batch[0][:, 0] + next(context.student.parameters()).sum()


@cache
def untrained_lpips() -> pid.LPIPS:
    return pid.LPIPS("squeeze", resize=None, weights="random")


def net() -> pid.nets.MLP:
    return pid.nets.MLP(2, width=8, depth=2, fourier=4)


def calls(tmp_path: Path) -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """A valid call of each public name: the function and its arguments by name."""
    ring, z, labels = pid.toy("ring"), torch.randn(4, 2), torch.zeros(4, dtype=torch.int64)
    ode, grid, student = pid.DenoiserODE(ring), pid.karras_grid(5), pid.Trajectory(net(), event_shape=(2,))
    path = tmp_path / "file.safetensors"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = pid.distill(ring, net(), steps=1, batch_size=4, n=5, progress=False)
    result.save(tmp_path / "student.safetensors")
    (tmp_path / "tiny.toml").write_text(RECIPE)
    preconditioned = pid.nets.Preconditioned(net())
    pid.save_teacher(preconditioned, tmp_path / "teacher.safetensors")
    picture = torch.rand(2, 1, 8, 8)
    unet = {"img_resolution": 8, "in_channels": 1, "out_channels": 1, "model_channels": 16, "channel_mult": [1]}
    unet |= {"num_blocks": 1, "attn_resolutions": [], "label_dim": 0, "augment_dim": 0, "dropout": 0.0}
    precond = {"img_resolution": 8, "img_channels": 1, "label_dim": 0, "use_fp16": False, "model_channels": 16}
    precond |= {"channel_mult": [1], "num_blocks": 1, "attn_resolutions": [], "model_type": "SongUNet"}
    brief = {"steps": 1, "batch_size": 4, "n": 5}
    span = {"t_min": 0.002, "t_max": 80.0}
    logistic = pid.system("logistic")
    method: Any = {"method": "pid", "t_max": 80.0, "t_min": 0.002, "spacing": "karras", "rho": 7.0, "windows": 1}
    config = {**brief, **method, "distance": "l2", "weight": "uniform", "time_sampling": "uniform", "init": "teacher"}
    config |= {"derivative": "forward", "stop_gradient": True, "last_interval": "drop", "boundary_weight": 0.0}
    config |= {
        "lr": 1e-3,
        "warmup": 0.1,
        "constant": True,
        "beta2": 0.9,
        "optimizer": "muon",
        "matrix_lr": 0.02,
        "ema": (0.9,),
        "seed": 0,
    }
    config |= {"micro_batch": None, "precision": "float32", "recompute": False, "compile": None}
    flow = {"velocity": nn.Identity(), "event_shape": 2, "data_at": 0, "label_dim": 0, "sigma_data": 0.5}
    distill = {"teacher": ring, "student": None, "method": "pid", "config": pid.Config(**brief), "data": None}
    distill |= {"prior": None, "t_start": 80.0, "t_end": 0.002, "event_shape": (2,), "seed": 0}
    run = {"steps": 1, "batch_size": 4, "progress": False, "track_error": 0, "checkpoints": None, "save_every": 1}
    run |= {"max_time": 1e-6, "max_images": None, "callbacks": ()}  # one step, however many are wanted
    settings = {name: config[name] for name in ("distance", "weight", "time_sampling", "spacing", "derivative")}
    settings |= {"optimizer": "adam", "n": 5}
    conditional = unet | {"label_dim": 3, "augment_dim": 2}
    inputs = {"x": picture, "c_noise": torch.ones(2), "class_labels": torch.tensor([0, 2])}
    inputs |= {"augment_labels": torch.ones(2, 2)}
    noisy = {"x": picture, "sigma": 1.0, "class_labels": None}
    flow_map = pid.FlowMap(net(), event_shape=(2,))
    consistency = pid.ConsistencyFunction(net(), event_shape=(2,))
    progressive = pid.ProgressiveStudent([flow_map, flow_map], [2, 1])
    joint = pid.nets.MLP(2, width=8, depth=1, times=2)
    operator = pid.NeuralOperator(joint, times=[1.0, 0.1], event_shape=(2,))
    early, late = pid.Trajectory(net(), 80.0, t_min=1.0), pid.Trajectory(net(), 1.0, t_min=0.1, boundary="increment")
    chain = PiecewiseTrajectory([early, late])
    problem = result.problem
    assert problem is not None
    flow_teacher = pid.teachers.from_flow(lambda x, t, class_labels=None: x, event_shape=2)
    alphas = torch.linspace(0.99, 0.01, 20, dtype=torch.float64)
    table: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
        "LPIPS": (
            pid.LPIPS,
            {"net": "squeeze", "resize": None, "pooling": "max", "weights": "random", "chunk": 1},
        ),
        "LPIPS.forward": (
            lambda **pair: untrained_lpips()(**pair),
            {"a": torch.rand(1, 1, 24, 24), "b": torch.rand(1, 1, 24, 24)},
        ),
        "Config": (pid.Config, config),
        "DenoiserODE": (pid.DenoiserODE, {"denoiser": ring}),
        "DenoiserODE.velocity": (ode.velocity, {"x": z, "t": 1.0, "class_labels": None}),
        "DenoiserODE.lhs": (ode.lhs, {"x": z, "dxdt": z, "t": 1.0}),
        "DenoiserODE.denoise": (ode.denoise, {"x": z, "t": 1.0, "class_labels": None}),
        "DenoiserODE.rhs": (ode.rhs, {"x": z, "t": 1.0, "class_labels": None}),
        "VelocityODE": (pid.VelocityODE, {"f": logistic.f}),
        "VelocityODE.lhs": (pid.VelocityODE(logistic.f).lhs, {"x": z, "dxdt": z, "t": 1.0}),
        "VelocityODE.rhs": (pid.VelocityODE(logistic.f).rhs, {"x": z, "t": 1.0, "class_labels": None}),
        "VelocityODE.velocity": (pid.VelocityODE(logistic.f).velocity, {"x": z, "t": 1.0, "class_labels": None}),
        "EmpiricalDenoiser": (pid.EmpiricalDenoiser, {"data": z, "bandwidth": 0.1, "chunk": 2}),
        "EmpiricalDenoiser.denoise": (pid.EmpiricalDenoiser(z).denoise, {"x": z, "sigma": 1.0, "class_labels": None}),
        "EmpiricalDenoiser.sample": (pid.EmpiricalDenoiser(z).sample, {"n": 2, "generator": None}),
        "GaussianMixture": (pid.GaussianMixture, {"means": z, "covs": 0.1, "weights": [0.25] * 4}),
        "GaussianMixture.denoise": (ring.denoise, {"x": z, "sigma": 1.0, "class_labels": None}),
        "GaussianMixture.log_prob": (ring.log_prob, {"x": z, "sigma": 1.0}),
        "GaussianMixture.score": (ring.score, {"x": z, "sigma": 1.0}),
        "GaussianMixture.component": (ring.component, {"x": z, "sigma": 1.0}),
        "GaussianMixture.sample": (ring.sample, {"n": 2, "generator": None}),
        "GaussianMixture.ring": (pid.GaussianMixture.ring, {"modes": 3, "radius": 1.0, "std": 0.1}),
        "GaussianMixture.grid": (pid.GaussianMixture.grid, {"side": 2, "spacing": 0.6, "std": 0.1}),
        "GaussianMixture.checkerboard": (pid.GaussianMixture.checkerboard, {"side": 0.8, "std": 0.1}),
        "GaussianMixture.moons": (pid.GaussianMixture.moons, {"modes": 3, "std": 0.1}),
        "GaussianMixture.spiral": (pid.GaussianMixture.spiral, {"modes": 3, "turns": 1.5, "std": 0.1}),
        "SubspaceMixture": (
            pid.SubspaceMixture,
            {"mixture": ring, "basis": torch.eye(4)[:, :2], "offset": torch.zeros(1, 2, 2), "off_plane_std": 0.1},
        ),
        "SubspaceMixture.denoise": (
            pid.SubspaceMixture(ring, torch.eye(4)[:, :2], torch.zeros(4), 0.1).denoise,
            {"x": torch.randn(3, 4), "sigma": 1.0, "class_labels": None},
        ),
        "SubspaceMixture.sample": (
            pid.SubspaceMixture(ring, torch.eye(4)[:, :2], torch.zeros(4), 0.1).sample,
            {"n": 2, "generator": None},
        ),
        "SubspaceMixture.fit": (
            pid.SubspaceMixture.fit,
            {"data": torch.randn(20, 3), "components": 2, "directions": 2, "off_plane_std": 0.1, "seed": 0},
        ),
        "System": (
            pid.System,
            {
                "f": logistic.f,
                "low": (0.0,),
                "high": (1.0,),
                "t_start": 0.0,
                "t_end": 1.0,
                "names": ("x",),
                "stiff": False,
            },
        ),
        "System.prior": (logistic.prior, {"n": 2, "generator": None}),
        "System.reference": (logistic.reference, {"x": z[:, :1].abs(), "grid": torch.linspace(0, 1, 3)}),
        "Trajectory": (
            pid.Trajectory,
            {
                "network": net(),
                **span,
                "sigma_data": 0.5,
                "boundary": "hard",
                "time": "log",
                "c_in": 0.1,
                "event_shape": (2,),
            },
        ),
        "Trajectory.__call__": (student, {"z": z, "t": 1.0, "class_labels": None}),
        "Trajectory.generate": (student.generate, {"z": z, "class_labels": None, "calls": 1, "generator": None}),
        "Trajectory.sample": (student.sample, {"n": 2, "class_labels": None, "generator": None, "calls": 1}),
        "Trajectory.trajectory": (student.trajectory, {"z": z, "grid": grid, "class_labels": None}),
        "FlowMap": (pid.FlowMap, {"network": net(), **span, "sigma_data": 0.5, "event_shape": (2,)}),
        "FlowMap.__call__": (flow_map, {"x": z, "s": 2.0, "t": 1.0, "class_labels": None}),
        "FlowMap.generate": (flow_map.generate, {"z": z, "class_labels": None, "calls": 2, "generator": None}),
        "FlowMap.sample": (flow_map.sample, {"n": 2, "class_labels": None, "generator": None, "calls": 1}),
        "FlowMap.trajectory": (flow_map.trajectory, {"z": z, "grid": grid, "class_labels": None}),
        "ConsistencyFunction": (pid.ConsistencyFunction, {"network": net(), **span, "event_shape": (2,)}),
        "ConsistencyFunction.generate": (consistency.generate, {"z": z, "calls": 2, "generator": None}),
        "ProgressiveStudent": (pid.ProgressiveStudent, {"stages": [flow_map, flow_map], "numbers": [2, 1]}),
        "ProgressiveStudent.generate": (progressive.generate, {"z": z, "class_labels": None, "calls": 2}),
        "NeuralOperator": (
            pid.NeuralOperator,
            {"network": joint, "t_max": 80.0, "times": [1.0, 0.1], "sigma_data": 0.5, "c_in": 0.1, "event_shape": (2,)},
        ),
        "NeuralOperator.path": (operator.path, {"z": z, "class_labels": None}),
        "students.PiecewiseTrajectory": (PiecewiseTrajectory, {"windows": [early, late]}),
        "students.PiecewiseTrajectory.__call__": (chain, {"z": z, "t": 1.0, "class_labels": None}),
        "students.PiecewiseTrajectory.generate": (chain.generate, {"z": z, "calls": 1}),
        "students.PiecewiseTrajectory.trajectory": (chain.trajectory, {"z": z, "grid": [80.0, 1.0, 0.1]}),
        "Result": (
            pid.Result,
            {
                "student": student,
                "averages": {},
                "history": result.history,
                "config": result.config,
                "problem": result.problem,
            },
        ),
        "Result.generate": (result.generate, {"z": z, "class_labels": None, "calls": 1, "generator": None}),
        "Result.sample": (result.sample, {"n": 2, "class_labels": None, "generator": None, "calls": 1}),
        "Result.evaluate": (result.evaluate, {"n": 8, "seed": 1, "calls": 1}),
        "Result.plot": (result.plot, {"path": tmp_path / "figure.png"}),
        "Result.save": (result.save, {"path": path}),
        "Result.watch": (result.watch, {"starts": 2, "seed": 7, "view": None, "title": "a", "class_labels": None}),
        "boundary_loss": (pid.boundary_loss, {"trajectory": student, "z": z, "class_labels": None}),
        "distill": (pid.distill, distill | run),
        "distill settings": (
            lambda **o: pid.distill(ring, net(), steps=1, batch_size=4, progress=False, **o),
            settings,
        ),
        "steps": (pid.steps, distill),
        "steps of an ODE": (
            lambda **o: pid.steps(pid.VelocityODE(logistic.f), net(), steps=1, n=5, windows=1, **o),
            {"prior": pid.toy("ring").sample, "t_start": 0.0, "t_end": 1.0, "event_shape": None},
        ),
        "karras_grid": (pid.karras_grid, {"n": 5, **span, "rho": 7.0}),
        "linear_grid": (pid.linear_grid, {"n": 5, **span}),
        "log_grid": (pid.log_grid, {"n": 5, **span}),
        "l1": (pid.l1, {"a": z, "b": z}),
        "l2": (pid.l2, {"a": z, "b": z}),
        "pseudo_huber": (pid.pseudo_huber, {"a": z, "b": z, "c": 0.03}),
        "load": (
            pid.load,
            {"path": tmp_path / "student.safetensors", "teacher": ring, "student": None, "event_shape": None},
        ),
        "load_official_student": (pid.load_official_student, {"path": path}),
        "load_teacher": (pid.load_teacher, {"source": tmp_path / "teacher.safetensors"}),
        "save_teacher": (pid.save_teacher, {"denoiser": preconditioned, "path": path}),
        "pid_loss": (
            pid.pid_loss,
            {
                "trajectory": student,
                "ode": ode,
                "z": z,
                "grid": grid,
                "index": labels,
                "derivative": "forward",
                "distance": "l2",
                "weight": "uniform",
                "stop_gradient": True,
                "last_interval": "drop",
                "class_labels": None,
            },
        ),
        "solve": (pid.solve, {"ode": ode, "x": z, "grid": grid, "method": "euler", "class_labels": None}),
        "solve from a student": (lambda **options: pid.solve(ode, z, grid, **options), {"start": lambda z, t: z}),
        "picard": (pid.picard, {"ode": ode, "path": z[None].repeat(2, 1, 1), "grid": grid, "class_labels": None}),
        "solve by scipy": (
            lambda **options: pid.solve(ode, z, grid, "scipy", **options),
            {"integrator": "DOP853", "rtol": 1e-3, "atol": 1e-3},
        ),
        "system": (pid.system, {"name": "logistic"}),
        "toy": (pid.toy, {"name": "ring", "modes": 3, "std": 0.1}),
        "train_denoiser": (
            lambda network, **o: pid.train_denoiser(network=net() if network is NEW else network, **o),  # it freezes it
            {
                "data": z,
                "class_labels": None,
                "network": NEW,
                "config": None,
                "progress": False,
                "checkpoints": None,
                "save_every": 1,
                "max_time": 1e-6,
                "steps": 1,
                "batch_size": 4,
            },
        ),
        "watch": (
            pid.watch,
            {"teacher": logistic, "student": None, "starts": 2, "seed": 7, "axes": (0, 1), "view": None, "title": "a"},
        ),
        "watch of a diffusion": (pid.watch, {"teacher": ring, "student": student, "starts": 2}),
        "viewer.View": (viewer.View, dict.fromkeys(("n", "frame"), 3) | {"solver": "euler", "probe": None}),
        "viewer.Scene.save": (viewer.Scene("a", np.ones(3), []).save, {"path": tmp_path / "scene.html"}),
        "viewer.Scene.seen": (viewer.Scene("a", np.ones(3), []).seen, {"view": viewer.View()}),
        "nets.MLP": (
            pid.nets.MLP,
            {"event_shape": 2, "width": 8, "depth": 2, "fourier": 4, "harmonics": 2, "norm": False, "label_dim": 0},
        ),
        "nets.MLP.orient": (pid.nets.MLP(2, width=8, directions=1), {"basis": torch.ones(2, 1)}),
        "nets.MLP.forward": (net(), {"x": z, "time": torch.ones(4), "class_labels": None}),
        "nets.ChebyshevMLP": (pid.nets.ChebyshevMLP, {"event_shape": 2, "width": 8, "depth": 2, "terms": 3}),
        "nets.ChebyshevMLP.forward": (
            pid.nets.ChebyshevMLP(2, width=8, depth=2),
            {"x": z, "time": torch.zeros(4)},
        ),
        "nets.SongUNet.forward": (pid.nets.SongUNet(**conditional), inputs),
        "nets.DhariwalUNet.forward": (pid.nets.DhariwalUNet(**conditional), inputs),
        "nets.SongUNet": (pid.nets.SongUNet, unet | {"label_dropout": 0.0, "resample_filter": [1, 1]}),
        "nets.DhariwalUNet": (pid.nets.DhariwalUNet, unet),
        "nets.EDMPrecond": (pid.nets.EDMPrecond, precond | {"sigma_min": 0.0, "sigma_max": 80.0, "sigma_data": 0.5}),
        "nets.EDMPrecond.forward": (
            image_teacher(),
            {"x": picture, "sigma": 1.0, "class_labels": None, "augment_labels": None},
        ),
        "nets.VPPrecond": (
            pid.nets.VPPrecond,
            precond | {"beta_d": 19.9, "beta_min": 0.1, "M": 1000, "epsilon_t": 1e-5},
        ),
        "nets.VEPrecond": (pid.nets.VEPrecond, precond | {"sigma_min": 0.02, "sigma_max": 100.0}),
        "nets.iDDPMPrecond": (pid.nets.iDDPMPrecond, precond | {"C_1": 0.001, "C_2": 0.008, "M": 10}),
        "nets.VPPrecond.forward": (pid.nets.VPPrecond(**precond), noisy),
        "nets.VEPrecond.forward": (pid.nets.VEPrecond(**precond), noisy),
        "nets.iDDPMPrecond.forward": (pid.nets.iDDPMPrecond(**precond), noisy),
        "nets.Preconditioned": (pid.nets.Preconditioned, {"network": net(), "sigma_data": 0.5}),
        "nets.Preconditioned.forward": (preconditioned, {"x": z, "sigma": 1.0, "class_labels": None}),
        "teachers.from_flow": (pid.teachers.from_flow, flow),
        "teachers.from_flow's denoiser": (flow_teacher, {"x": z, "sigma": 1.0, "class_labels": None}),
        "teachers.from_network": (
            pid.teachers.from_network,
            {"network": nn.Identity(), "parametrization": alphas, "event_shape": 2, "label_dim": 0}
            | {"sigma_data": 0.5, "sigma_min": 0.1, "sigma_max": 5.0},
        ),
        "teachers.from_network's denoiser": (
            pid.teachers.from_network(lambda x, t, class_labels=None: x, "edm", event_shape=2),
            {"x": z, "sigma": 1.0, "class_labels": None},
        ),
        "teachers.load_teacher": (
            pid.load_teacher,
            {"source": tmp_path / "teacher.safetensors", "precond": None},
        ),
        "teachers.from_diffusers": (pid.teachers.from_diffusers, {"unet": net(), "scheduler": None, "sigma_data": 0.5}),
        "teachers.import_teacher": (
            pid.teachers.import_teacher,
            {"source": tmp_path / "teacher.safetensors", "path": path},
        ),
        "teachers.published_teachers": (pid.teachers.published_teachers, {}),
        "methods.PID": (pid.methods.PID, {"derivative": "forward", "stop_gradient": True, "boundary_weight": 0.0}),
        "methods.method_of": (method_of, {"method": "pid"}),
        "methods.settings_of": (settings_of, {"method": Constant()}),
        "methods.BOOT": (pid.methods.BOOT, {"boundary_weight": 0.0}),
        "methods.CD": (pid.methods.CD, {"solver": "euler"}),
        "methods.CT": (pid.methods.CT, {"n_first": 10}),
        "methods.PD": (pid.methods.PD, {"calls": 8, "teacher_steps": 16, "shortening": 0.7}),
        "methods.SCM": (pid.methods.SCM, {"c": 0.1}),
        "methods.Endpoint": (pid.methods.Endpoint, {"pairs": 8, "solver": "euler"}),
        "methods.DSNO": (pid.methods.DSNO, {"pairs": 8, "solver": "euler", "times": 4}),
        "methods.Reflow": (pid.methods.Reflow, {"pairs": 8, "solver": "euler", "at_start": 0.25}),
        "methods.FlowMapping": (pid.methods.FlowMapping, {"identity": "eulerian", "points": "own", "at_end": 0.25}),
        "methods.Corrector": (pid.methods.Corrector, {"first": "pid", "share": 0.6, "slow": 0.005}),
        "methods.FreeFlow": (pid.methods.FreeFlow, {}),
        "methods.Denoising": (Denoising, {"data": z, "class_labels": None}),
        "methods.Stage": (
            pid.methods.Stage,
            {"part": net(), "steps": 1, "lr_scale": 1.0, "auxiliary": None, "auxiliary_lr": 1.0},
        ),
        "methods.Method of one's own": (
            lambda **o: pid.distill(ring, net(), steps=1, batch_size=4, progress=False, **o),
            {"method": Constant()},
        ),
        "train.OptimizerConfig": (
            train.OptimizerConfig,
            {
                name: config[name]
                for name in ("steps", "batch_size", "lr", "warmup", "constant", "beta2", "optimizer", "matrix_lr")
            }
            | {name: config[name] for name in ("ema", "seed", "micro_batch")},
        ),
        "logs.jsonl": (logs.jsonl, {"path": tmp_path / "log.jsonl", "every": 1}),
        "logs.check": (logs.check, {"kind": "tensorboard"}),
        "logs.tracker": (
            logs.tracker,
            {"kind": "tensorboard", "name": "a", "folder": tmp_path, "config": {"lr": 1.0}, "every": 1},
        ),
        "recipes.read": (recipes.read, {"source": tmp_path / "tiny.toml"}),
        "recipes.load_images": (recipes.load_images, {"teacher": {"data": "digits", "resolution": 4}}),
        "recipes.resize": (recipes.resize, {"images": picture, "size": 4}),
        "recipes.training_data": (recipes.training_data, {"teacher": {"data": "digits", "labels": True}}),
        "recipes.teacher_from_recipe": (
            recipes.teacher_from_recipe,
            {"recipe": recipes.read(tmp_path / "tiny.toml"), "device": "cpu", "progress": False},
        ),
        "sampling.draw_index": (
            sampling.draw_index,
            {"density": torch.ones(5), "n": 3, "generator": torch.Generator()},
        ),
        "distance.lpips": (lpips, {"a": z, "b": z, "net": "squeeze", "pooling": "max"}),
        "problem.sample_prior": (problem.sample_prior, {"n": 2, "generator": None}),
        "problem.sample_labels": (problem.sample_labels, {"n": 2, "generator": None}),
        "features.Inception": (features.Inception, {"weights": path}),
        "metrics.agreement": (metrics.agreement, {"a": z, "b": z, "classifier": nn.Identity()}),
        "metrics.energy_distance": (metrics.energy_distance, {"a": z, "b": z}),
        "metrics.floor": (metrics.floor, {"distance": metrics.energy_distance, "samples": z, "splits": 2, "seed": 0}),
        "metrics.frechet_distance": (metrics.frechet_distance, {"a": z, "b": z, "features": None}),
        "metrics.precision_recall": (metrics.precision_recall, {"a": z, "b": z, "features": None, "k": 1}),
        "metrics.read_statistics": (metrics.read_statistics, {"path": path}),
        "metrics.relative_rmse": (metrics.relative_rmse, {"a": z, "b": z}),
        "metrics.rmse": (metrics.rmse, {"a": z, "b": z}),
        "metrics.sliced_wasserstein": (metrics.sliced_wasserstein, {"a": z, "b": z, "projections": 2}),
        "metrics.statistics": (metrics.statistics, {"batches": [z], "features": None}),
        "metrics.Statistics.of": (metrics.Statistics.of, {"features": z}),
        "metrics.Statistics": (
            lambda **o: metrics.frechet_distance(metrics.Statistics(**o), z),
            {"mean": torch.zeros(2).double(), "cov": torch.eye(2).double(), "n": 4},
        ),
        "metrics.wrong_mode_share": (metrics.wrong_mode_share, {"a": z, "b": z, "mixture": ring}),
        "images.to_uint8": (images.to_uint8, {"images": picture}),
        "images.quantize": (images.quantize, {"images": picture}),
        "images.image_grid": (images.image_grid, {"images": picture, "columns": 2, "zoom": 1}),
        "images.comparison": (images.comparison, {"rows": {"a": picture}, "columns": 2}),
        "images.save_png": (
            images.save_png,
            {"pixels": np.zeros((2, 2, 3), np.uint8), "path": tmp_path / "a.png"},
        ),
        "data.digits": (data.digits, {}),
        "data.fashion_mnist": (data.fashion_mnist, {"folder": tmp_path, "split": "train"}),
        "data.read_images": (data.read_images, {"path": path}),
        "data.read_idx": (data.read_idx, {"path": path}),
    }
    return table


def test_a_student_s_file_knows_its_teacher(tmp_path: Path) -> None:
    ring, path = pid.toy("ring"), tmp_path / "student.safetensors"
    pid.distill(ring, net(), steps=1, batch_size=4, n=5, progress=False).save(path)
    assert pid.load(path, pid.toy("ring")).problem is not None
    again = pid.load(path).save(tmp_path / "again.safetensors")  # what a file knows survives without the teacher
    for file in (path, again):
        with pytest.raises(ValueError, match="student of another teacher"):
            pid.load(file, pid.toy("moons"))


def test_metrics_of_any_dtype_far_from_zero_and_of_any_strides() -> None:
    a, b = torch.randint(0, 256, (2, 40, 3), generator=torch.Generator().manual_seed(0))
    expected = (a - b).double().square().mean().sqrt().item()
    assert metrics.rmse(a.to(torch.uint8), b.to(torch.uint8)) == pytest.approx(expected)  # differences of bytes wrap
    assert metrics.rmse(300 * a.half(), 0 * b.half()) == metrics.rmse((300 * a.half()).double(), 0 * b.double())
    x, y = torch.randn(2, 60, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y = 0.5 * y
    for distance in (metrics.energy_distance, metrics.relative_rmse, metrics.precision_recall):
        assert distance(x + 1e7, y + 1e7) == pytest.approx(distance(x, y), rel=1e-6)
        assert distance(x.T.contiguous().T, y.T.contiguous().T) == pytest.approx(distance(x, y))
    # Each side relative to its own mean: the distances within a far sample do not cancel.
    far = y + 1e9
    across = 2 * (x[:, None] - far).norm(dim=2).mean() - torch.pdist(x).mean() - torch.pdist(y).mean()
    assert metrics.energy_distance(x, far) == pytest.approx(across.item(), abs=1e-4, rel=0)
    for bad in (x.to(torch.complex64), x[0, 0], x.to("meta"), x.to_sparse()):
        with pytest.raises(ValueError, match="a must be a dense tensor"):
            metrics.energy_distance(bad, y)


def test_distances_of_halves_and_of_what_they_cannot_compare() -> None:
    a, b = torch.full((2, 3), 300.0), torch.zeros(2, 3)
    assert pid.l2(a.half(), b.half()).tolist() == [90000.0] * 2  # infinite in half precision
    assert pid.l1(a.half(), b.half()).dtype == torch.float32
    for pair in ((a, b[:1]), (a, b[:, :1]), (a, b.long()), (a.long(), b.long()), (a[0], b[0])):
        with pytest.raises(ValueError, match=r"must be|same shape"):
            pid.l2(*pair)
    with pytest.raises(ValueError, match="c must be a positive number"):
        pid.pseudo_huber(a, b, c=0)


@pytest.mark.parametrize("teacher", [pid.toy("ring"), pid.EmpiricalDenoiser(torch.randn(9, 2), 0.1)])
def test_toys_in_half_precision(teacher: Any) -> None:
    x = 300 * torch.ones(1, 2, dtype=torch.float16)  # its square overflows
    assert torch.equal(teacher(x, 80.0), teacher(x.float(), 80.0).half())
    with pytest.raises(ValueError, match=r"got \(1, 2\) torch.int64 for x, but x .* floating-point"):
        teacher(x.long(), 80.0)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda r: r.sample(0), "got n = 0, but n must be a whole number from 1 to 2.31 - 1"),
        (lambda r: r.student.sample(-1), "got n = -1, but n must be a whole number from 1 to 2.31 - 1"),
        (lambda r: r.evaluate(0), "got n = 0, but n must be a whole number from 1 to 2.31 - 1"),
        (lambda r: r.evaluate(2), "pass n >= 4"),
        (lambda r: r.watch(view=3), "view must be a pidlearn.viewer.View"),
        (lambda r: pid.karras_grid(5, rho=1e308), "coincide after rounding"),
        (lambda r: pid.Trajectory(net(), event_shape="ab"), "event_shape must hold the sizes"),
        (lambda r: pid.nets.MLP(2, label_dim=-1), "label_dim must be a whole number from 0"),
        (lambda r: pid.nets.MLP(2, width=-1), "width must be a whole number from 1"),
        (lambda r: pid.nets.SongUNet(8, 1, 1, model_channels=0), "model_channels must be a whole number"),
        (lambda r: pid.System(abs, (0.0,), (1.0, 2.0), 0.0, 1.0, ("x",)), "one entry for each"),
        (lambda r: pid.distill(pid.toy("ring"), net(), steps=1, checkpoints=""), "checkpoints must be a path"),
        (lambda r: pid.solve(pid.toy("ring"), torch.ones(2, 2), pid.karras_grid(5)), "ode must be a DenoiserODE"),
        (lambda r: pid.GaussianMixture("ab", 1), "means must be real numbers"),
        (lambda r: pid.train_denoiser(torch.randn(4, 2), network=3), "network must be a torch.nn.Module"),
    ],
)
def test_what_was_raw_or_accepted_in_silence(call: Callable[..., Any], says: str) -> None:
    result = pid.Result(pid.Trajectory(net(), event_shape=(2,)), {}, {"loss": torch.zeros(0).numpy()}, CONFIG, RING)
    with pytest.raises(ValueError, match=says):
        call(result)


def generated(
    tmp_path: Path, left_out: tuple[str, ...] = ()
) -> Iterator[tuple[str, str, Callable[..., Any], dict[str, Any], Any]]:
    """Every call with one argument replaced by each malformed value, but of names that begin otherwise."""
    table = {name: call for name, call in calls(tmp_path).items() if not name.startswith(left_out)}
    for name, (function, arguments) in table.items():
        for argument, valid in arguments.items():
            for value in malformed(tmp_path) + (altered(valid) if isinstance(valid, Tensor) else []):
                yield name, argument, function, arguments | {argument: value}, value


def raised_by_us(trace: TracebackType | None) -> bool:
    """Whether the innermost frame is a `raise` statement of this library's, rather than an operation that fails."""
    assert trace is not None
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    return f"{Path(pid.__file__).parent}" in code.co_filename and dis.opname[code.co_code[trace.tb_lasti]] in (
        "RAISE_VARARGS",
        "RERAISE",
    )


def shown(value: Any) -> str:
    return f"{tuple(value.shape)} {value.dtype} {value.device}" if isinstance(value, Tensor) else repr(value)


def outcome(function: Callable[..., Any], arguments: dict[str, Any]) -> str:
    """What is wrong with the way in which a call ends; nothing for most."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            function(**arguments)
    except OSError as error:  # a path that cannot be read or written, which Python reports best
        return "" if error.filename or raised_by_us(error.__traceback__) else f"OSError: {error}"
    except (ValueError, TypeError) as error:
        trace = error.__traceback__
        if raised_by_us(trace):
            return "" if len(str(error)) > 30 and re.search(r"\W", str(error)) else f"says little: {error}"
        where = traceback.extract_tb(trace)[-1]
        return f"{type(error).__name__} by {Path(where.filename).name}:{where.lineno}: {error!s:.100}"
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} by {Path(where.filename).name}:{where.lineno}: {error!s:.100}"
    return ""


COSTLY = (
    *("LPIPS", "Result.", "SubspaceMixture.fit", "System", "distance", "distill", "features", "load", "logs"),
    *("methods", "nets", "recipes", "solve", "steps", "students", "teachers", "train", "watch"),
)
"""Beginnings of the names that are left to the slow test: their calls train, integrate, read files or import much."""

NO_CALL = {
    *(
        "citation",
        "methods",
        "nets",
        "teachers",
        "methods.METHODS",
        "methods.Batch",
        "methods.Context",
        "methods.Method",
    ),
    *("teachers.load_official_student", "teachers.save_teacher", "metrics.Features", "data.DATA_SETS", "data.DEBIAN"),
    *("sampling.DENSITIES", "sampling.Density", "logs.TRACKERS", "recipes.Recipe", "recipes.UnfinishedError"),
    *("recipes.names", "viewer.Heat", "viewer.Images", "viewer.Network", "viewer.Plane", "viewer.Scene"),
    *("viewer.phase_plane", "viewer.script"),
}
"""Public names that are modules, tables, types or plain data, that take no arguments, or that have another name."""


def wrong(cases: Iterable[Any]) -> list[str]:
    ends = ((name, argument, shown(value), outcome(f, options)) for name, argument, f, options, value in cases)
    return [f"{name}({argument}={value}): {end}" for name, argument, value, end in ends if end]


def test_every_public_name_is_called(tmp_path: Path) -> None:
    below = {"nets": pid.nets, "teachers": pid.teachers, "methods": pid.methods, "metrics": metrics, "images": images}
    below |= {"data": data, "sampling": sampling, "logs": logs, "recipes": recipes, "viewer": viewer}
    below |= {"features": features}
    names = {*pid.__all__, *(f"{name}.{part}" for name, module in below.items() for part in module.__all__)}
    assert names - calls(tmp_path).keys() == NO_CALL


def test_some_malformed_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # "ab" is a path, too
    assert wrong(random.Random(0).sample(list(generated(tmp_path, COSTLY)), SLICE)) == []


def test_usual_forms_of_arguments_are_accepted(tmp_path: Path) -> None:
    ring, z = pid.toy("ring", modes=np.int64(3), std=np.float32(0.1)), torch.randn(4, 2)
    assert ring.sample(np.int32(3)).shape == (3, 2)
    assert pid.GaussianMixture.ring(torch.tensor(3), radius=1).overlap < 0.1
    student = pid.Trajectory(pid.nets.MLP([2], width=np.int64(8), depth=2), np.float64(80), event_shape=[2])
    assert student(z, [1, 2, 3, 4]).shape == student(z, np.float32(1)).shape == (4, 2)
    ode = pid.DenoiserODE(ring)
    assert torch.equal(ode.lhs(z, 0.0, np.ones(4)), z)
    assert pid.solve(ode, z, [2, 1], "scipy", rtol=np.float64(1e-3), atol=[1e-3, 1e-3]).shape == (2, 4, 2)
    mean, cov = np.zeros(2, np.float32), [[1, 0], [0, 1]]
    known = metrics.Statistics(mean, cov)
    assert metrics.frechet_distance(known, metrics.statistics(part for part in (z, -z))) > 0
    result = pid.distill(
        ring, student, steps=1, batch_size=4, n=5, progress=0, callbacks=(nothing,), track_error=np.int64(4)
    )
    assert pid.load(str(result.save(tmp_path / "student"))).student(z, 1).shape == z.shape


def offline(*args: object, **options: object) -> None:
    raise OSError("no network")


@pytest.mark.slow
def test_all_malformed_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("urllib.request.urlopen", offline)
    assert wrong(generated(tmp_path)) == []
