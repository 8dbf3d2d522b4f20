"""`harness.run` and `harness.sweep`: work, with progress; what came of it as a frame."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from harness.api.arguments import Overrides, opened, written
from harness.errors import ConfigError, StoreFullError

if TYPE_CHECKING:
    import pandas as pd

    from harness.run.resources import Options
    from harness.store import Store


def run(
    overrides: Overrides = (),
    *,
    timeout: float | None = None,
    memory: int | None = None,
    retry: str | Iterable[str] = (),
    store: Store | Path | str | None = None,
) -> pd.DataFrame:
    """Run one cell, of an experiment the first level of every factor; returns its measurements.

    What the store holds is not run again. The frame is that of `harness.records`; the row of a cell that did
    not end well says why in `outcome` and `reason`.
    Units: timeout in seconds a stage, memory in bytes of address space a stage; None = no limit. `retry`
    names outcomes to try again, e.g. "failed"
    Raises: as `sweep`
    """
    chosen = _options(timeout=timeout, memory=memory, retry=retry)
    return _work(written(overrides), chosen, store=opened(store), single=True)


def sweep(
    overrides: Overrides,
    *,
    workers: int | None = None,
    timeout: float | None = None,
    memory: int | None = None,
    total_memory: int | None = None,
    patience: float | None = 600.0,
    retry: str | Iterable[str] = (),
    store: Store | Path | str | None = None,
) -> pd.DataFrame:
    """Run every cell of an experiment, or of several values of options; returns their measurements.

    Progress goes to stderr. The same call goes on where an earlier one ended or was interrupted, and runs no
    stage twice. The frame is that of `harness.records`, of this sweep's cells: one row a cell and metric, and
    of a cell that did not end well one row with `outcome` and `reason`. `frame.attrs["sweep"]` is the name
    that `harness.report` and `harness.records` take.
    Units: workers = stages at a time (None = as many as the cores or GPUs take); timeout in seconds a
    stage; memory in bytes of address space a stage, total_memory in bytes of stages beside each other; None =
    no limit; patience in seconds that a measurement of speed waits to be alone on its machine (None = for
    ever).
    `retry` names outcomes to try again, e.g. ["failed", "oom"], or "all"
    Raises: ConfigError, UnknownNameError or PluginError before anything runs; KeyboardInterrupt after Ctrl-C
    and StoreFullError on a full disk, both with everything finished kept in the store
    """
    chosen = _options(
        workers=workers,
        timeout=timeout,
        memory=memory,
        total_memory=total_memory,
        patience=patience,
        retry=retry,
    )
    return _work(written(overrides), chosen, store=opened(store), single=False)


def _options(**values: object) -> Options:
    from harness.run.launch import options

    retry = values["retry"]
    assert isinstance(retry, Iterable)
    values["retry"] = retry if isinstance(retry, str) else ",".join(retry)
    return options(values)


def _work(overrides: list[str], options: Options, *, store: Store, single: bool) -> pd.DataFrame:
    from harness.commands.sweep import FULL_EXIT, INTERRUPTED_EXIT, TERMINATED_EXIT, work
    from harness.compose.arguments import job_overrides
    from harness.plan.make import make_plan
    from harness.report.measurements import load

    if not single and not job_overrides(overrides):
        raise ConfigError(
            "harness.sweep compares something: name an experiment (['experiment=demo']) or several values "
            "(['attention=full,grouped_query']); harness.run() runs one cell of the defaults"
        )
    made = make_plan(overrides, store=store, single=single)
    with _environment():
        code = work(made, options)
    if code == INTERRUPTED_EXIT:
        raise KeyboardInterrupt(f"what has finished is kept in {store.root}; the same call goes on from here")
    if code == FULL_EXIT:
        raise StoreFullError(
            f"a disk is full; free space under {store.root} (`harness store gc`) and call again"
        )
    if code == TERMINATED_EXIT:
        os.kill(os.getpid(), signal.SIGTERM)  # the worker held it back until its stages were put away
    return load(store, made.name, cells=[cell.cell.id for cell in made.cells])


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """Variables that a sweep sets for its stages (no network, no telemetry) do not stay with the caller."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
