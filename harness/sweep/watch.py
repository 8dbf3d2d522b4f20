"""`harness watch SWEEP`: a live view of a sweep that other processes run, read off the store."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from harness.errors import ConfigError, StoreError
from harness.store import Store
from harness.store.records import NAME, read_record
from harness.sweep import machine
from harness.sweep.execute import STEPS, read_steps
from harness.sweep.manifest import read_manifest
from harness.sweep.progress import describe_step

HELP = """usage: harness watch SWEEP [--once]

Cells by outcome, time left, running stages with what they use and how far they are, and what this machine
has left.
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
    watch = Watch(Store().root, names[0])
    picture, finished = watch.look()
    if "--once" in arguments:
        Console().print(picture)
        return 0
    with Live(picture, refresh_per_second=4) as live:
        while not finished:
            time.sleep(INTERVAL)
            picture, finished = watch.look()
            live.update(picture)
    return 0


class Watch:
    """What the store and this machine show of a sweep, one look after another."""

    def __init__(self, root: Path, sweep: str) -> None:
        self._root, self._sweep, self._store = root, sweep, Store(root)
        self._seconds: dict[str, float] = {}
        """What the stages in the store took, by key."""

    def look(self) -> tuple[Group, bool]:
        """A picture of the sweep, and whether every cell has its outcome.

        Raises: UnknownNameError where the store knows no such sweep
        """
        manifest = read_manifest(self._root, self._sweep)
        stages: dict[str, Any] = manifest["stages"]
        outcomes = Counter(_status(self._root, manifest["sweep"], cell) for cell in manifest["cells"])
        waiting = outcomes.pop("", 0)
        self._learn(stages)
        running = {key: holder for key, holder in self._holders() if key in stages}
        by_outcome = ", ".join(f"{number} {status}" for status, number in sorted(outcomes.items()))
        title = f"{self._sweep}: {sum(outcomes.values())} of {len(manifest['cells'])} cells"
        stored = f"stages: {len(self._seconds.keys() & stages.keys())} of {len(stages)} in the store"
        left = self._left(stages, running)
        parts: list[Any] = [
            Text(f"{title}{' (' + by_outcome + ')' if by_outcome else ''}"),
            Text(stored + (f", about {_duration(left)} left at this pace" if left else "")),
        ]
        if running:
            table = Table("running", "on", Column("for", justify="right"), box=None, padding=(0, 2, 0, 0))
            table.add_column("memory", justify="right")
            table.add_column("cores", justify="right")
            table.add_column("progress")
            for key, holder in running.items():
                table.add_row(stages[key]["title"], *self._row(key, holder))
            parts.append(table)
        disk = os.statvfs(self._root)
        parts.append(
            Text(
                f"this machine: load {os.getloadavg()[0]:.1f} on {machine.cores()} cores, "
                f"{machine.available_memory() / 2**30:.1f} GiB memory free, "
                f"{disk.f_bavail * disk.f_frsize / 2**30:.1f} GiB disk free"
            )
        )
        return Group(*parts), waiting == 0

    def _learn(self, stages: Mapping[str, Any]) -> None:
        """Note what stages took that have come into the store."""
        for key in stages:
            artifact = None if key in self._seconds else self._store.find(key)
            if artifact is not None:
                self._seconds[key] = artifact.meta.get("seconds", 0.0)

    def _holders(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for key in self._store.claims.names():
            holder = self._store.claims.holder(key)
            if holder:
                yield key, holder

    def _row(self, key: str, holder: Mapping[str, Any]) -> list[str]:
        """Where a stage runs, for how long, what it uses, how far it is."""
        seconds = _since(holder)
        steps = read_steps(self._root / "partial" / key / STEPS)
        used = machine.usage(holder["worker"][0]) if _is_here(holder) else None
        return [
            f"{holder.get('host')}:{holder.get('pid')}",
            _duration(seconds),
            f"{used[0] / 2**20:.0f} MiB" if used else "",
            f"{used[1] / max(seconds, 1.0):.1f}" if used else "",
            describe_step(*steps[-1], seconds) if steps else "",
        ]

    def _left(self, stages: Mapping[str, Any], running: Mapping[str, Any]) -> float:
        """Seconds until all stages are made, as such stages took so far; 0 where nothing tells."""
        took: dict[str, list[float]] = {}
        for key in self._seconds.keys() & stages.keys():
            seconds = self._seconds[key]
            for name in (stages[key]["title"], stages[key]["stage"], ""):
                took.setdefault(name, []).append(seconds)
        left = 0.0
        for key, about in stages.items():
            known = took.get(about["title"]) or took.get(about["stage"]) or took.get("") or [0.0]
            if key not in self._seconds:
                left += max(0.0, median(known) - (_since(running[key]) if key in running else 0.0))
        return left / max(1, len(running))


def _since(holder: Mapping[str, Any]) -> float:
    return max(0.0, time.time() - float(holder.get("since", time.time())))


def _is_here(holder: Mapping[str, Any]) -> bool:
    """Whether the process that makes a stage can be looked at from here."""
    return "worker" in holder and holder.get("host") == os.uname().nodename


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


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
