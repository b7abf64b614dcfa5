"""The command; see the package."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from app.shared.assets import ASSETS
from benchmarks.app_assets import ablation, images, methods, presets, systems
from benchmarks.app_assets.common import SEED, Metrics

__all__ = ["GROUPS", "main", "tasks"]

GROUPS = {"watch": presets, "systems": systems, "break": ablation, "images": images, "methods": methods}


def tasks() -> Iterator[tuple[str, Path, Callable[[Path], Metrics]]]:
    """Yield group, file and the function that makes it, for all assets."""
    for group, module in GROUPS.items():
        for name, make in module.tasks():
            yield group, name, make


def main() -> None:
    """Make the missing files, and write the manifest."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.app_assets", description="Make the app's assets.")
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=list(GROUPS), help="groups of files to make")
    parser.add_argument("--force", action="store_true", help="make files again that exist already")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # small matrices are slower on several threads
    manifest_file = ASSETS / "manifest.json"
    manifest = json.loads(manifest_file.read_text()) if manifest_file.exists() else {}
    for group, name, make in tasks():
        path = ASSETS / name
        if group not in arguments.only or (path.exists() and str(name) in manifest and not arguments.force):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        metrics = make(path)
        content = path.read_bytes()
        manifest[str(name)] = {
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
            "torch": torch.__version__,
            "seed": SEED,
            "figures": metrics,
        }
        manifest_file.write_text(json.dumps(dict(sorted(manifest.items())), indent=1) + "\n")
        print(f"{name}: {len(content) / 1000:.0f} kB  {metrics}", flush=True)
    print(f"{sum(entry['bytes'] for entry in manifest.values()) / 1e6:.2f} MB in total")


if __name__ == "__main__":
    main()
