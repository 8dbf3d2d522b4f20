"""What the command line does with sweeps: run, sweep, and Hydra's multirun."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

from rich.console import Console
from rich.table import Table

from harness.compose.arguments import SEARCH, job_overrides
from harness.errors import ConfigError, StoreFullError
from harness.notices import ask_for_quiet
from harness.plan.devices import lacking
from harness.plan.make import make_plan
from harness.plan.manifest import write_manifest
from harness.plan.need import Need
from harness.plan.plan import Plan
from harness.report.intended import check_layout
from harness.run.crew import Crew, serve
from harness.run.launch import WORKER, Hydra, launch, options, read_plan
from harness.run.machine import cores, one_thread_of_numpy
from harness.run.outcome import STATUSES, Outcome
from harness.run.preload import preload
from harness.run.progress import Lines, Live, view
from harness.run.record import look_before
from harness.run.resources import Options
from harness.run.worker import Terminated, Worker
from harness.store import Store
from harness.store.files import full_text, is_disk_full
from harness.store.records import sweep_dir

__all__ = ["Hydra", "multirun", "options", "run", "sweep"]
FULL_EXIT = 75
"""EX_TEMPFAIL: the same command goes on once there is room."""
INTERRUPTED_EXIT = 130
TERMINATED_EXIT = 143
REASONS = 5
"""How many different reasons stand below the last table."""
NO_ROOM = Need(processes=0)
"""Of a worker that runs nothing: it counts what others have done."""
_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")


def run(overrides: Sequence[str], options: Options | None = None, *, store: Store | None = None) -> int:
    """`harness run`: one cell, the first levels of an experiment; returns the exit code."""
    placed = [text for text in overrides if text.startswith(WORKER)]
    if placed:
        return work_on(Path(placed[0].removeprefix(WORKER).strip("'\"")))
    return work(make_plan(overrides, store=store or Store(), single=True), options or Options())


def sweep(
    overrides: Sequence[str],
    options: Options | None = None,
    *,
    store: Store | None = None,
    only: str | None = None,
) -> int:
    """`harness sweep`: all cells of a command line, or `only` the one of that id; returns the exit code.

    0: every cell is ok or was known to be incompatible, and some cell is ok; 1: not so; 75: the disk is full;
    130: Ctrl-C
    Raises: ConfigError and its kin before anything runs
    """
    made = make_plan(overrides, store=store or Store())
    if only is not None:
        made.cells = [cell for cell in made.cells if cell.cell.id == only]
    return work(made, options or Options())


def multirun(
    arguments: Sequence[str], chosen: Options, *, hydra: Hydra, finished: Callable[[Plan], None]
) -> int:
    """What Hydra's multirun does: the whole sweep, here or through the chosen launcher, then `finished`."""
    given = [*arguments, *(t for t in hydra.config.hydra.overrides.hydra if t.startswith(SEARCH))]
    if not job_overrides(arguments):
        raise ConfigError(
            "harness sweep compares something: name an experiment (experiment=demo) or several values "
            "(attention=full,grouped_query); `harness run` runs one cell of the defaults"
        )
    made = make_plan(job_overrides(given), store=Store(), places_nodes=hydra.places_nodes)
    say = Lines(made).say

    def place(part: Plan) -> bool:
        if not part.missing():
            return False
        prepare_environment(part)
        write_manifest(part)
        say(part.summary())
        launch(part, chosen, hydra, say)
        return True

    # A shell starts background commands with Ctrl-C ignored; whoever sends the signal to this one means it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code = work(made, chosen, place=place if hydra.places_workers else None)
    except KeyboardInterrupt:
        say(f"left; workers that were placed go on (harness watch {made.name}); the same command too")
        return INTERRUPTED_EXIT
    if code in (0, 1):
        finished(made)
    return code


def work_on(file: Path) -> int:
    """One worker of a plan, placed by a launcher."""
    # A launcher's own way to start processes (joblib's loky) is not known to our fork server.
    multiprocessing.set_start_method("forkserver", force=True)
    made, chosen, room = read_plan(file)
    crew = Crew.of(made.graph.store, room)
    if crew is not None and crew.node > 0:
        prepare_environment(made)
        serve(crew, made, chosen, preload=preload(made.missing()), say=view(made).say)
        return 0
    with nullcontext() if crew is None else crew.joined():
        code, _ = _execute(made, chosen, room=room, crew=crew)
    if code == TERMINATED_EXIT:
        # Dead by the signal, as its scheduler expects: a job that returned would count as done, not requeued.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    return code


def work(made: Plan, options: Options, *, place: Callable[[Plan], bool] | None = None) -> int:
    """All of a plan, here, or in workers that `place` starts; returns the exit code.

    What was placed is counted here, not run: this may be a login node.
    """
    check_layout(made)
    code = 0
    for part in _parts(made):
        placed = place is not None and place(part)
        code, ended = _execute(part, options, room=NO_ROOM if placed else None)
        if not ended:
            break
    return code


def _parts(made: Plan) -> Iterator[Plan]:
    """What runs one after the other: the trials of a tuning, round by round; then the sweep's own cells."""
    tuning = made.tuning
    while tuning is not None:
        yield tuning.trials()
        tuning.look()
        if tuning.settled:
            made.cells = tuning.cells()
            break
    yield made


def _execute(
    made: Plan, options: Options, *, room: Need | None, crew: Crew | None = None
) -> tuple[int, bool]:
    """One worker on a plan; returns the exit code, and whether every cell has ended.

    Raises: ConfigError where this machine lacks a device that stages name
    """
    if room != NO_ROOM and (reason := lacking(made.missing())):
        raise ConfigError(reason)
    prepare_environment(made)
    standing = look_before(made)
    write_manifest(made)
    shown = view(made)
    shown.say(made.summary())
    for note in (*made.notes, *standing, *idle_cores(made)):
        shown.say(note)
    worker = Worker(made, options, shown, room=room, crew=crew)
    code = 0
    try:
        worker.run()
    except (StoreFullError, OSError) as error:
        if not is_disk_full(error):
            raise
        shown.say(f"paused: {full_text(error)}")
        code = FULL_EXIT
    except KeyboardInterrupt:
        shown.say("stopped; the same command goes on from here")
        code = INTERRUPTED_EXIT
    except Terminated:
        shown.say("terminated; the same command goes on from here")
        code = TERMINATED_EXIT
    finally:
        if isinstance(shown, Live):
            shown.close()
    outcomes = {outcome.status for outcome in worker.outcomes.values()}
    print_outcomes(made, list(worker.outcomes.values()))
    ended = len(made.cells) == len(worker.outcomes)
    if code:
        return code, False
    unfinished = not ended and room in (None, NO_ROOM)
    good = outcomes <= {"ok", "incompatible"} and not (ended and "ok" not in outcomes)
    return (0 if good and not unfinished else 1), ended


def idle_cores(made: Plan) -> list[str]:
    """A note that a single cell leaves cores idle, as no stage takes more threads than its options say."""
    busy = max((node.threads for node in made.missing() if node.device == "cpu"), default=0)
    if len(made.cells) > 1 or not 0 < busy < cores():
        return []
    hint = f"threads={cores()} makes this cell faster, under keys of its own"
    return [f"{busy} of {cores()} cores busy at most: {hint}"]


def prepare_environment(made: Plan) -> None:
    """Libraries' telemetry off; no network where the scale promises none. Set before anything is imported."""
    ask_for_quiet()
    one_thread_of_numpy()
    if all(cell.cell.offline for cell in made.cells):
        for name in _OFFLINE:
            os.environ.setdefault(name, "1")


def print_outcomes(made: Plan, outcomes: Sequence[Outcome]) -> None:
    """The last table: how many cells ended how; below it why, and how to try again what is final."""
    console = Console()
    counts = Counter(outcome.status for outcome in outcomes)
    table = Table("outcome", "cells")
    for status in STATUSES:
        if counts[status]:
            table.add_row(status, str(counts[status]))
    unfinished = len(made.cells) - len(outcomes)
    if unfinished:
        table.add_row("unfinished", str(unfinished))
    console.print(table)
    lines = _reasons(outcomes)
    again = [status for status in STATUSES if counts[status] and status not in ("ok", "incompatible")]
    if again:
        lines.append(f"The same command does not try these again; hydra.sweeper.retry={','.join(again)} does")
    for line in (*lines, f"Records: {sweep_dir(made.graph.store.root, made.name)}"):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _reasons(outcomes: Sequence[Outcome]) -> list[str]:
    """Why cells did not end well, the most frequent reasons first."""
    found = Counter(
        (outcome.status, outcome.stage, next(iter(outcome.reason.splitlines()), ""))
        for outcome in outcomes
        if outcome.status != "ok"
    )
    lines = []
    for (status, stage, reason), number in found.most_common(REASONS):
        where = f" at {stage}" if stage else ""
        lines.append(f"{status}{where} ({number}): {reason}")
    return lines + ([f"and {len(found) - REASONS} other reasons"] if len(found) > REASONS else [])
