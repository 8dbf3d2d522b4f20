"""What the command line does with sweeps: run, sweep, and Hydra's multirun."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from harness.errors import StoreFullError
from harness.store import Store
from harness.sweep.launch import WORKER, Hydra, job_overrides, launch, options, read_plan
from harness.sweep.manifest import write_manifest
from harness.sweep.outcome import STATUSES
from harness.sweep.plan import Plan, make_plan
from harness.sweep.progress import Live, view
from harness.sweep.resources import Options
from harness.sweep.worker import Worker

__all__ = ["Hydra", "multirun", "options", "run", "sweep"]
FULL_EXIT = 75
"""EX_TEMPFAIL: the same command goes on once there is room."""
INTERRUPTED_EXIT = 130
_QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")


def run(overrides: Sequence[str], options: Options | None = None, *, store: Store | None = None) -> int:
    """`harness run`: one cell, the first levels of an experiment; returns the exit code."""
    placed = [text for text in overrides if text.startswith(WORKER)]
    if placed:
        return work_on(Path(placed[0].removeprefix(WORKER).strip("'\"")))
    return _work(make_plan(overrides, store=store or Store(), single=True), options or Options())


def sweep(
    overrides: Sequence[str],
    options: Options | None = None,
    *,
    store: Store | None = None,
    only: str | None = None,
) -> int:
    """`harness sweep`: all cells of a command line, or `only` the one of that id; returns the exit code.

    0: every cell is ok or was known to be incompatible; 1: some are not; 75: the disk is full; 130: Ctrl-C
    Raises: ConfigError and its kin before anything runs
    """
    made = make_plan(overrides, store=store or Store())
    if only is not None:
        made.cells = [cell for cell in made.cells if cell.cell.id == only]
    return _work(made, options or Options())


def multirun(
    arguments: Sequence[str], chosen: Options, *, hydra: Hydra, finished: Callable[[Plan], None]
) -> int:
    """What Hydra's multirun does: the whole sweep, here or through the chosen launcher, then `finished`."""
    made = make_plan(job_overrides(arguments), store=Store())
    if hydra.places_workers and made.first.missing():
        prepare_environment(made.first)
        print(made.first.summary(), file=sys.stderr)
        launch(made, chosen, hydra)
        # Their results are in the store; what is left to do here is to count, or to finish.
    code = _work(made, chosen)
    if code in (0, 1):
        finished(made)
    return code


def work_on(file: Path) -> int:
    """One worker of a plan, placed by a launcher."""
    # A launcher's own way to start processes (joblib's loky) is not known to our fork server.
    multiprocessing.set_start_method("forkserver", force=True)
    made, chosen = read_plan(file)
    return _work(made, chosen)


def _work(made: Plan, options: Options) -> int:
    """All trials first, where there are any; then the sweep's own cells."""
    tuning = made.tuning
    while tuning is not None:
        code = _execute(tuning.trials(), options)
        if code not in (0, 1):
            return code
        tuning.look()
        if tuning.settled:
            made.cells = tuning.cells()
            break
    return _execute(made, options)


def _execute(made: Plan, options: Options) -> int:
    prepare_environment(made)
    write_manifest(made)
    shown = view(made)
    shown.say(made.summary())
    for note in made.notes:
        shown.say(note)
    worker = Worker(made, options, shown)
    code = 0
    try:
        worker.run()
    except StoreFullError as error:
        shown.say(f"paused: {error}")
        code = FULL_EXIT
    except KeyboardInterrupt:
        shown.say("stopped; the same command goes on from here")
        code = INTERRUPTED_EXIT
    finally:
        if isinstance(shown, Live):
            shown.close()
    outcomes = Counter(outcome.status for outcome in worker.outcomes.values())
    print_outcomes(made, outcomes)
    if code:
        return code
    return 0 if set(outcomes) <= {"ok", "incompatible"} else 1


def prepare_environment(made: Plan) -> None:
    """Libraries' telemetry off; no network where the scale promises none. Set before anything is imported."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if all(cell.cell.config.get("scale") in ("smoke", "mini") for cell in made.cells):
        for name in _OFFLINE:
            os.environ.setdefault(name, "1")


def print_outcomes(made: Plan, outcomes: Counter[str]) -> None:
    """The last table: how many cells ended how."""
    console = Console()
    table = Table("outcome", "cells")
    for status in STATUSES:
        if outcomes[status]:
            table.add_row(status, str(outcomes[status]))
    unfinished = len(made.cells) - sum(outcomes.values())
    if unfinished:
        table.add_row("unfinished", str(unfinished))
    console.print(table)
    console.print(
        f"Records: {made.graph.store.root / 'records' / made.name}", highlight=False, soft_wrap=True
    )
