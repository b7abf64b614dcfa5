"""Every method on the same truth: `python -m benchmarks.methods`.

Each method trains the same network on the toys, whose exact flow is known, and is compared path by path and as a
distribution. Its optimiser, its learning rate and one more setting come from a search that is the same for all, on
another seed:

    python -m benchmarks.methods --search        first: the settings
    python -m benchmarks.methods                 the table at equal CPU time
    python -m benchmarks.methods --equal-steps   the table at equal steps
    python -m benchmarks.methods --data digits   search and table with a U-Net as teacher
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.methods.claims import RULE, claims
from benchmarks.methods.contenders import CONTENDERS, SOLVERS
from benchmarks.methods.measure import floor_row, row, solver_row
from benchmarks.methods.search import SEED, TEXT, at_edge, best, search
from benchmarks.methods.search import lines as search_lines
from benchmarks.methods.subjects import TOYS, subject, truth
from benchmarks.methods.tables import figure, lines, measured, text
from benchmarks.table import CPU, RESULTS, Store, Task

STEPS = 2000


def main() -> None:
    """Compute the missing rows, and publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--search", action="store_true", help="choose the settings")
    parser.add_argument("--equal-steps", action="store_true", help=f"{STEPS} steps each, instead of equal CPU time")
    parser.add_argument("--seeds", type=int, nargs="+", help="0 1 2, of digits 0")
    parser.add_argument("--data", nargs="+", default=list(TOYS), choices=[*TOYS, "digits"], help="toys, or only digits")
    parser.add_argument("--only", nargs="+", default=list(CONTENDERS), choices=CONTENDERS, metavar="NAME")
    parser.add_argument("--jobs", type=int, default=2, help="number of processes, with one thread each")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the tables")
    args = parser.parse_args()
    toys = "digits" not in args.data
    if not toys and (len(args.data) > 1 or args.equal_steps):
        parser.error("digits have a table of their own, at equal CPU time: leave other data and --equal-steps out")
    if not toys:
        truth("digits")  # before the processes that read it
    kind, suffix, options = ("ring", "", "") if toys else ("digits", "-digits", " --data digits")
    budget = subject(kind).budget
    names = [name for name in args.only if toys or CONTENDERS[name].on_images is not None]

    facts: dict[str, Any] = {"data": kind, "seed": SEED, "budget": budget}
    # Settings that are best on one processor serve on any: a budget is a number of steps on the same one.
    found = Store(args.out, f"methods-search{suffix}", f"python -m benchmarks.methods --search{options}", None, **facts)
    search(found, kind, names, args.jobs)
    found.write(
        "Settings of the methods", f"{TEXT} {at_edge(found.rows)}", {f"{kind}, seed {SEED}": search_lines(found.rows)}
    )
    if args.search:
        return
    options += " --equal-steps" if args.equal_steps else ""
    limit: dict[str, Any] = {"steps": STEPS} if args.equal_steps else {"budget": budget}
    table = "methods-steps" if args.equal_steps else f"methods{suffix}"
    device = None if args.equal_steps else CPU
    store = Store(args.out, table, f"python -m benchmarks.methods{options}", device, **limit)
    tasks: dict[str, Task] = {f"{data}/Euler-250": (floor_row, data) for data in args.data}
    tasks |= {f"{data}/{key}": (solver_row, data, solver) for data in args.data for key, solver in SOLVERS.items()}
    for seed in args.seeds or ((0, 1, 2) if toys else (0,)):
        for data in args.data:
            for name in names:
                chosen = best(found.rows, name)
                limits = (limit.get("budget"), limit.get("steps"))
                tasks[f"{data}/{name}/seed {seed}"] = (row, data, CONTENDERS[name], chosen, seed, *limits)
    store.fill(tasks, args.jobs)
    sections = {data: lines(store.rows, data) for data in measured(store.rows)}
    about = f"{text(limit, kind)} {at_edge(found.rows)}".rstrip()
    if args.only == list(CONTENDERS):
        sections["What it says to claims"] = claims(store.rows, list(sections))
        about += f" {RULE}"
    seeds = sorted({key.split("/seed ")[1] for key in store.rows if "/seed " in key})
    title = "Every method on the same truth" if toys else "Every method on digits, with a U-Net"
    if args.equal_steps:
        title += ", at equal steps"
    store.publish(title, f"{about} Seeds: {', '.join(seeds)}.", sections)
    if not args.equal_steps:
        figure(store.rows).savefig(args.out / f"{table}.png", dpi=100)


if __name__ == "__main__":
    main()
