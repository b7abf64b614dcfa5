"""The command line: `pidlearn app | distill | sample | evaluate | import-teacher`.

A command is a module of this package with two functions: ``add_arguments(parser)`` declares its arguments, and
``run(arguments)`` does the work and returns the exit status. To add one, write that file and give it a line in
`COMMANDS`.
"""

from __future__ import annotations

import argparse
import re
import sys
import warnings
from importlib import import_module

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "app": "watch a diffusion model become a one-step model, in the browser",
    "distill": "distill an image teacher into a one-step student, following a recipe",
    "sample": "generate images with a student, one network call each by default, and save them as a PNG",
    "evaluate": "measure a student: error to its teacher, FID, precision and recall",
    "import-teacher": "convert a teacher's checkpoint to a safetensors file",
}
"""The help line of every command. Its module has the same name, with underscores for hyphens."""

NO_MEMORY = re.compile(r"can't allocate memory|Storage size calculation overflowed|out of memory")
"""Messages of PyTorch's errors about tensors that are too large: their class on a CPU is RuntimeError."""

EXIT_INTERRUPTED, EXIT_TERMINATED = 130, 143
"""The statuses that shells report for a process ended by SIGINT or SIGTERM: 128 plus the number of the signal."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit status: 1 after an error, which is printed as one line."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = _parser(argv).parse_args(argv)
    original_format = warnings.formatwarning
    # Omit the file, line and source code of a warning, which mean nothing to the user of a command.
    warnings.formatwarning = lambda message, *_: f"pidlearn {arguments.command}: {message}\n"
    try:
        status: int = arguments.run(arguments)
        return status
    except (OSError, ValueError, ImportError) as error:
        print(f"pidlearn {arguments.command}: {error}", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not NO_MEMORY.search(str(error)):
            raise
        reason = str(error).partition("\n")[0][:200]
        print(f"pidlearn {arguments.command}: this needs more memory than there is: {reason}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    finally:
        warnings.formatwarning = original_format


def _parser(argv: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pidlearn", description="Physics-informed distillation.")
    subparsers = parser.add_subparsers(dest="command", required=True)
    command = next((argument for argument in argv if not argument.startswith("-")), None)
    for name, summary in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        if name == command:
            # Import only the command that was named: most of them import torch, which takes seconds.
            module = import_module(f"pidlearn.cli.{name.replace('-', '_')}")
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    return parser


def duration(text: str) -> float:
    """Argument type: seconds, from text such as "90", "30m", "12h" or "2d"."""
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+)([smhd]?)", text)
    seconds = float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}.get(match[2], 1) if match else 0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(
            f"got {text!r}, but a time is a number of seconds, or has a unit as in 30m, 12h or 2d"
        )
    return seconds


def positive_int(text: str) -> int:
    """Argument type: an integer from 1 to 2^63 - 1."""
    return _integer(text, 1)


def nonnegative_int(text: str) -> int:
    """Argument type: an integer from 0 to 2^63 - 1."""
    return _integer(text, 0)


def _integer(text: str, minimum: int) -> int:
    # The length first: Python converts no more than 4,300 digits.
    if not (text.isdecimal() and len(text) < 20 and minimum <= int(text) < 2**63):
        raise argparse.ArgumentTypeError(
            f"got {text!r:.80}, but it must be an integer of at least {minimum} and below 2^63"
        )
    return int(text)
