"""`pidlearn import-teacher`: convert a teacher's checkpoint to a safetensors file."""

from __future__ import annotations

import argparse

from pidlearn import teachers
from pidlearn.nets.registry import DENOISERS

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``pidlearn import-teacher``."""
    parser.add_argument(
        "source", nargs="?", help="a .pkl, .pt or .safetensors file, or the name of a published teacher"
    )
    parser.add_argument("-o", "--output", help="the .safetensors file to write")
    parser.add_argument(
        "--precond",
        choices=DENOISERS,
        metavar="NAME",
        help=f"preconditioning of a .pt state dict, which does not say it: {', '.join(sorted(DENOISERS))}",
    )
    parser.add_argument("--list", action="store_true", help="list the published teachers and exit")


def run(arguments: argparse.Namespace) -> int:
    """Convert a teacher, or list the published ones."""
    if arguments.list:
        print(teachers.published_teachers())
        return 0
    if not (arguments.source and arguments.output):
        raise ValueError("the source or the output is missing: expected a source and -o OUTPUT, or --list")
    print(teachers.import_teacher(arguments.source, arguments.output, precond=arguments.precond))
    return 0
