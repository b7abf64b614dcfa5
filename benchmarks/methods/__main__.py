"""Every method on the same truth: `python -m benchmarks.methods`.

Each method trains the same network on the toys, whose exact flow is known, and is compared path by path and as a
distribution. Its learning rate and one more setting come from a search that is the same for all, on another seed:

    python -m benchmarks.methods --search        first: the settings
    python -m benchmarks.methods                 the table at equal CPU time
    python -m benchmarks.methods --equal-steps   the table at equal steps
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.methods.claims import claims
from benchmarks.methods.contenders import CONTENDERS, SOLVERS
from benchmarks.methods.measure import BUDGET, best, floor_row, row, search_row, solver_row
from benchmarks.methods.tables import SEARCH_TEXT, figure, lines, search_lines, text
from benchmarks.table import RESULTS, Store, Task

SEARCH = {"data": "ring", "seed": 100, "budget": BUDGET // 3}
STEPS = 2000


def main() -> None:
    """Compute the missing rows, and publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--search", action="store_true", help="choose the settings")
    parser.add_argument("--equal-steps", action="store_true", help=f"{STEPS} steps each, instead of equal CPU time")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data", nargs="+", default=["ring", "checkerboard", "anisotropic"], help="of pidlearn.toy")
    parser.add_argument("--only", nargs="+", default=list(CONTENDERS), choices=CONTENDERS, metavar="NAME")
    parser.add_argument("--jobs", type=int, default=2, help="number of processes, with one thread each")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the tables")
    args = parser.parse_args()

    search = Store(args.out, "methods-search", "python -m benchmarks.methods --search", **SEARCH)
    searches: dict[str, Task] = {
        name: (search_row, SEARCH["data"], CONTENDERS[name], SEARCH["seed"], SEARCH["budget"]) for name in args.only
    }
    search.fill(searches, args.jobs)
    search.write("Settings of the methods", SEARCH_TEXT, {"Ring, seed 100": search_lines(search.rows)})
    if args.search:
        return
    name = "methods-steps" if args.equal_steps else "methods"
    budget: dict[str, Any] = {"steps": STEPS} if args.equal_steps else {"budget": BUDGET}
    command = "python -m benchmarks.methods" + (" --equal-steps" if args.equal_steps else "")
    store = Store(args.out, name, command, **budget)
    tasks: dict[str, Task] = {f"{data}/Euler-250": (floor_row, data) for data in args.data}
    tasks |= {f"{data}/{key}": (solver_row, data, kind) for data in args.data for key, kind in SOLVERS.items()}
    for seed in args.seeds:
        for data in args.data:
            for key in args.only:
                settings = best(search.rows, key)
                limits = (budget.get("budget"), budget.get("steps"))
                tasks[f"{data}/{key}/seed {seed}"] = (row, data, CONTENDERS[key], settings, seed, *limits)
    store.fill(tasks, args.jobs)
    sections = {data: lines(store.rows, data) for data in dict.fromkeys(key.split("/")[0] for key in store.rows)}
    if args.only == list(CONTENDERS):
        sections["What it says to claims"] = claims(store.rows, list(sections))
    seeds = sorted({key.split("/seed ")[1] for key in store.rows if "/seed " in key})
    store.publish("Every method on the same truth", f"{text(budget)} Seeds: {', '.join(seeds)}.", sections)
    if not args.equal_steps:
        figure(store.rows, args.out / "methods.png")


if __name__ == "__main__":
    main()
