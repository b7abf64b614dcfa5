"""What lets PID learn faster: `python -m benchmarks.faster [--data DATA] [--only NAME ...] [--seeds 0 1]`.

DATA is toys, odes, unseen, digits (with a U-Net) or digits-mlp. Each change has the CPU time of the reference: Adam as
in the recipes of the first release, on toys 7,000 steps, on digits 400 with batches of 128, a fifth of the recipe's; on
ODEs today's recipe, and with an MLP, too, since the first release's rate of 4e-3 is unstable there. On toys, "Muon"
changes the optimiser, and every further row one more thing. The unseen mixtures and ODEs, which had no part in the
choice, have Adam's recipe and today's only. The cost of a step is measured against the reference in turns, right before
the run.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.faster.changes import DATA, STEPS, changes
from benchmarks.faster.runs import row
from benchmarks.faster.tables import COSTS, TEXT, TITLES, lines, unseen_lines
from benchmarks.methods.subjects import truth
from benchmarks.table import RESULTS, Store, Task


def main() -> None:
    """Compute the missing rows, and publish the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="toys", choices=DATA, help="digits: with a U-Net")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names of changes; all")
    parser.add_argument("--jobs", type=int, default=2, help="number of processes, with one thread each")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the table")
    args = parser.parse_args()
    names = DATA[args.data]
    if unknown := set(args.only or ()) - set(changes(names[0])):
        parser.error(f"no such changes: {', '.join(sorted(unknown))}")
    if args.data in ("digits", "digits-mlp"):
        truth(args.data)  # before the processes that read it
    name, options = ("faster", "") if args.data == "toys" else (f"faster-{args.data}", f" --data {args.data}")
    store = Store(args.out, name, f"python -m benchmarks.faster{options}", steps=STEPS[names[0]])
    tasks: dict[str, Task] = {
        f"{data}/{change}/seed {seed}": (row, data, change, seed)
        for seed in args.seeds
        for change in args.only or changes(names[0])
        for data in names
    }
    store.fill(tasks, args.jobs)
    seeds = sorted({key.split("/seed ")[1] for key in store.rows})
    title = f"What lets PID learn faster{TITLES[args.data]}"
    text = f"{TEXT[args.data]} {'' if args.data == 'unseen' else COSTS} Seeds {', '.join(seeds)}."
    table = unseen_lines(store.rows) if args.data == "unseen" else lines(store.rows, names)
    store.publish(title, text, {args.data: table})


if __name__ == "__main__":
    main()
