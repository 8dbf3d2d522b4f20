"""`harness watch SWEEP`: a live view of a sweep that other processes run, read off the store."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from harness.errors import ConfigError, StoreError
from harness.store import Store
from harness.store.records import NAME, read_record
from harness.sweep import machine
from harness.sweep.execute import STEPS, read_steps
from harness.sweep.manifest import read_manifest
from harness.sweep.progress import describe_step

HELP = """usage: harness watch SWEEP [--once]

Cells by outcome, running stages with progress and time left, and what the machine has left.
Ctrl-C leaves; the sweep goes on. --once prints one picture."""
INTERVAL = 1.0


def main(arguments: Sequence[str]) -> int:
    """Show a sweep until it is finished.

    Raises: ConfigError; UnknownNameError where the store knows no such sweep
    """
    names = [text for text in arguments if not text.startswith("-")]
    if "--help" in arguments or "-h" in arguments:
        print(HELP)
        return 0
    if len(names) != 1:
        raise ConfigError("harness watch needs the name of one sweep: harness watch demo")
    root = Store().root
    picture, finished = look(root, names[0])
    if "--once" in arguments:
        Console().print(picture)
        return 0
    with Live(picture, refresh_per_second=4) as live:
        while not finished:
            time.sleep(INTERVAL)
            picture, finished = look(root, names[0])
            live.update(picture)
    return 0


def look(root: Path, sweep: str) -> tuple[Group, bool]:
    """A picture of a sweep, and whether every cell has its outcome."""
    manifest = read_manifest(root, sweep)
    stages: dict[str, Any] = manifest["stages"]
    outcomes = Counter(_status(root, manifest["sweep"], cell) for cell in manifest["cells"])
    waiting = outcomes.pop("", 0)
    stored = sum(1 for key in stages if (root / "artifacts" / key[:2] / key / "artifact.json").is_file())
    by_outcome = ", ".join(f"{number} {status}" for status, number in sorted(outcomes.items()))
    title = f"{sweep}: {sum(outcomes.values())} of {len(manifest['cells'])} cells"
    parts: list[Any] = [
        Text(f"{title}{' (' + by_outcome + ')' if by_outcome else ''}"),
        Text(f"stages: {stored} of {len(stages)} in the store"),
    ]
    table = Table("running", "on", "for", "progress", box=None)
    store = Store(root)
    for key in store.claims.names():
        holder = store.claims.holder(key)
        if key in stages and holder:
            seconds = max(0.0, time.time() - holder.get("since", time.time()))
            steps = read_steps(root / "partial" / key / STEPS)
            progress = describe_step(*steps[-1], seconds) if steps else ""
            table.add_row(
                stages[key]["title"],
                f"{holder.get('host')}:{holder.get('pid')}",
                f"{seconds:.0f} s",
                progress,
            )
    if table.row_count:
        parts.append(table)
    load = os.getloadavg()[0]
    free = machine.available_memory() / 2**30
    disk = os.statvfs(root)
    parts.append(
        Text(
            f"this machine: load {load:.1f} on {machine.cores()} cores, {free:.1f} GiB memory free, "
            f"{disk.f_bavail * disk.f_frsize / 2**30:.1f} GiB disk free"
        )
    )
    return Group(*parts), waiting == 0


def _status(root: Path, sweep: str, cell: dict[str, Any]) -> str:
    """A cell's outcome; empty while the record of these very artifacts is not there."""
    file = root / "records" / sweep / cell["cell"] / NAME
    if not file.is_file():
        return ""
    try:
        record = read_record(file)
    except StoreError:
        return ""
    if [stage["key"] for stage in record["stages"]] != cell["keys"]:
        return ""
    return str(record["outcome"]["status"])
