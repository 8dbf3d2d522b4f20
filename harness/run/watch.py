"""`harness watch SWEEP`: a live view of a sweep that other processes run, read off the store."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from harness.errors import ConfigError, NewerFormatError, StoreError
from harness.plan.manifest import is_known, read_manifest
from harness.run import machine
from harness.run.execute import STEPS, read_steps
from harness.run.pace import Pace, duration, left_text, since
from harness.run.progress import describe_step
from harness.store import Store
from harness.store.records import NAME, TRIALS, read_record, record_dir, sweep_name

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
        self._root, self._sweep = root, sweep_name(sweep)
        self._pace = Pace(Store(root))

    def look(self) -> tuple[Group, bool]:
        """A picture of the sweep, of its trials first where it is tuned, and whether all has ended.

        Raises: UnknownNameError where the store knows no such sweep
        """
        names = [name for name in (self._sweep + TRIALS, self._sweep) if is_known(self._root, name)]
        parts: list[Any] = []
        waiting = 0
        for name in names or [self._sweep]:
            shown, open_cells = self._part(read_manifest(self._root, name))
            parts += shown
            waiting += open_cells
        if names == [self._sweep + TRIALS]:
            parts.append(Text(f"{self._sweep}: its cells follow once all trials have ended"))
            waiting += 1
        disk = os.statvfs(self._root)
        parts.append(
            Text(
                f"this machine: load {os.getloadavg()[0]:.1f} on {machine.cores()} cores, "
                f"{machine.available_memory() / 2**30:.1f} GiB memory free, "
                f"{disk.f_bavail * disk.f_frsize / 2**30:.1f} GiB disk free"
            )
        )
        return Group(*parts), waiting == 0

    def _part(self, manifest: Mapping[str, Any]) -> tuple[list[Any], int]:
        """A picture of one plan, and how many of its cells have no outcome yet."""
        name, stages, cells = manifest["sweep"], manifest["stages"], manifest["cells"]
        statuses = [_status(self._root, name, cell) for cell in cells]
        outcomes = Counter(status for status in statuses if status)
        waiting = len(cells) - sum(outcomes.values())
        stored, running = self._pace.stored(stages), self._pace.running(stages)
        asked = (
            key for cell, status in zip(cells, statuses, strict=True) if not status for key in cell["keys"]
        )
        left = self._pace.left(stages, asked=asked, running=running)
        by_outcome = ", ".join(f"{number} {status}" for status, number in sorted(outcomes.items()))
        noun = "trials" if name.endswith(TRIALS) else "cells"
        parts: list[Any] = [
            Text(
                f"{name}: {sum(outcomes.values())} of {len(cells)} {noun}"
                + (f" ({by_outcome})" if by_outcome else "")
            ),
            Text(f"stages: {stored} of {len(stages)} in the store{left_text(left)}"),
        ]
        if running:
            table = Table(
                "running", "of", "on", Column("for", justify="right"), box=None, padding=(0, 2, 0, 0)
            )
            table.add_column("memory", justify="right")
            table.add_column("cores", justify="right")
            table.add_column("progress")
            for key, holder in running.items():
                about = stages[key]
                table.add_row(about["title"], about.get("levels", ""), *self._row(key, holder))
            parts.append(table)
        return parts, waiting

    def _row(self, key: str, holder: Mapping[str, Any]) -> list[str]:
        """Where a stage runs, for how long, what it uses, how far it is."""
        seconds = since(holder)
        steps = read_steps(self._root / "partial" / key / STEPS)
        used = machine.usage(holder["worker"][0]) if _is_here(holder) else None
        return [
            f"{holder.get('host')}:{holder.get('pid')}",
            duration(seconds),
            f"{used[0] / 2**20:.0f} MiB" if used else "",
            f"{used[1] / max(seconds, 1.0):.1f}" if used else "",
            describe_step(*steps[-1], seconds) if steps else "",
        ]


def _is_here(holder: Mapping[str, Any]) -> bool:
    """Whether the process that makes a stage can be looked at from here."""
    return "worker" in holder and holder.get("host") == os.uname().nodename


def _status(root: Path, sweep: str, cell: dict[str, Any]) -> str:
    """A cell's outcome, or that a newer version wrote it; empty while no record of these artifacts stands."""
    file = record_dir(root, sweep=sweep, cell=cell["cell"]) / NAME
    if not file.is_file():
        return ""
    try:
        record = read_record(file)
    except NewerFormatError:
        return "written by a newer version"
    except StoreError:
        return ""
    if [stage["key"] for stage in record["stages"]] != cell["keys"]:
        return ""
    return str(record["outcome"]["status"])
