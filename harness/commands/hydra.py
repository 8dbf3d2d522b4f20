"""`harness run` and `harness sweep`: Hydra's command line over our configs, with all of Hydra's flags."""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.compose import compose, config_dir, explain, publish
from harness.compose.arguments import LAUNCHER, SEARCH, job_overrides, publish_file, standing
from harness.compose.hydra import CONFIG_NAME
from harness.errors import ConfigError, HarnessError
from harness.run.machine import one_thread_of_numpy

if TYPE_CHECKING:
    from harness.run.resources import Options

RUN_HELP = """usage: harness run KEY=VALUE ...

Runs one cell: composes the config, runs the stages that the store does not hold yet, writes a record.
Of an experiment it takes the first level of every factor. Hydra's flags work: --cfg job, --info searchpath;
hydra.sweeper.timeout=600, .memory=, .retry=failed as with `harness sweep`.

  harness run attention=grouped_query attention.num_kv_heads=2 seed=1
  harness run experiment=demo scale=smoke

Tab completion of axes, methods and options: eval "$(harness -sc install=bash)" (or zsh, fish)."""

SWEEP_HELP = """usage: harness sweep KEY=VALUE[,VALUE...] ...

Runs every cell of an experiment, crossed with whatever has several values; the same command again resumes.
Equal to `python -m harness -m ...`; Hydra's flags and launchers work (hydra/launcher=submitit_slurm).

  harness sweep experiment=demo
  harness sweep attention=full,sliding_window optimizer=adamw,lion seed=0,1,2

How it runs, which changes no result: hydra.sweeper.workers=2 (stages at a time),
.timeout=600 (seconds of each), .memory=8000000000 (bytes of address space of each),
.total_memory=16000000000 (bytes that stages beside each other may take), .patience=600 (seconds that a
measurement of speed waits to be alone on its machine, null = for ever; then it goes on beside the others,
and its record says so), .retry=failed (run again what ended so; oom, timeout, lost, all)."""

MULTIRUN, RUN = "hydra.mode=MULTIRUN", "hydra.mode=RUN"
_MAY_TAKE = ("--info", "-i")
"""Flags of which the next word is the value, unless it is an override."""
_SHOWS_ONLY = ("--cfg", "-c", "--info", "-i", "--hydra-help", "--version", "--shell-completion", "-sc")
"""Flags of Hydra that run nothing."""
_SHOWS_CONFIG = ("--cfg", "-c", *_MAY_TAKE)
"""Those that show a composition: of a sweep, that of its first cell."""
_TAKES = (
    "--config-dir",
    "-cd",
    "--config-path",
    "-cp",
    "--config-name",
    "-cn",
    "--package",
    "-p",
    "--cfg",
    "-c",
)
"""Flags of which the next word is the value."""
_OF_JOBS = ("hydra.job.", "hydra.help.")
_NOT_OURS = ("-", "+", "~", "hydra.")
"""What begins a flag, an override that adds or deletes, and one of Hydra itself."""


def run(arguments: Sequence[str]) -> int:
    """One cell (or, with -m, a sweep) through Hydra; returns the exit code of the work."""
    if "--help" in arguments or "-h" in arguments:
        print(RUN_HELP)
        return 0
    return through_hydra(arguments)


def sweep(arguments: Sequence[str]) -> int:
    """A multirun through Hydra; returns the exit code of the work."""
    if "--help" in arguments or "-h" in arguments:
        print(SWEEP_HELP)
        return 0
    return through_hydra(["--multirun", *arguments])


def through_hydra(arguments: Sequence[str]) -> int:
    """Hand the arguments to `hydra.main`; what it refuses is explained."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    one_thread_of_numpy()
    publish()
    arguments = standing(arguments)
    if MULTIRUN in arguments:
        # As the flag, without which Hydra says of every fault that a comma is ambiguous.
        others = (text for text in arguments if text not in ("-m", "--multirun", MULTIRUN))
        arguments = ["--multirun", *others]
    for text in arguments:
        publish_file(text)
    overrides, flags = _parted(arguments)
    multirun = "-m" in flags or "--multirun" in flags
    shown = {flag.partition("=")[0] for flag in flags}
    shows = not shown.isdisjoint(_SHOWS_ONLY)
    if not shows:
        _refuse_unused(overrides, flags, multirun=multirun)
    if not flags and all(map(_is_plain, overrides)):
        return _run(overrides)
    if not multirun and not shows:
        compose(job_overrides(overrides))  # refuses before Hydra does, and says why
    if not shown.isdisjoint(_SHOWS_CONFIG if multirun else _SHOWS_CONFIG[:2]):
        arguments, multirun = _as_it_runs(arguments), False
    if "COMP_LINE" in os.environ:  # completing a word: Hydra knows no subcommands
        os.environ["COMP_LINE"] = re.sub(r"^(\S+) (?:run|sweep|plan) ", r"\1 ", os.environ["COMP_LINE"])
    if multirun:
        explain.refuse_nothing(job_overrides(_parted(arguments)[0]), config_dir())
        arguments = _unread_by_hydra(arguments)
    codes: list[int] = []
    refused: list[HarnessError] = []  # said by us, without what Hydra would print before it

    def task(config: Any) -> None:
        try:
            codes.append(_task(config))
        except HarnessError as error:
            refused.append(error)

    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come to us instead of Hydra's own report
    before = sys.argv
    sys.argv = ["harness", *itertools.chain(*_parted(arguments))]
    try:
        hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=CONFIG_NAME)(task)()
    except (HydraException, OmegaConfBaseException) as error:
        explain.explain(error, overrides, None)
    finally:
        sys.argv = before
    if refused:
        raise refused[0]
    return max(codes, default=0)


def _is_plain(override: str) -> bool:
    """Whether an override has nothing to do with Hydra itself, which a file of the user's may."""
    key, _, value = override.partition("=")
    return "hydra" not in override and not (key == "experiment" and value.endswith((".yaml", ".yml")))


def _run(overrides: Sequence[str], options: Options | None = None) -> int:
    """One cell, composed by its plan alone."""
    from harness.commands.sweep import run as run_cell

    return int(run_cell(overrides, options) or 0)


def _refuse_unused(overrides: Sequence[str], flags: Sequence[str], *, multirun: bool) -> None:
    """Refuse what says of Hydra's mode or launcher something that the command does not do.

    Raises: ConfigError
    """
    if multirun and (RUN in overrides or "--run" in flags):
        raise ConfigError(
            f"{RUN if RUN in overrides else '--run'} has no effect beside `harness sweep` or -m; drop it, or "
            "use `harness run`"
        )
    placed = [text for text in overrides if text.startswith(LAUNCHER) and text != f"{LAUNCHER}basic"]
    if placed and not multirun:
        raise ConfigError(
            f"{placed[0]} has no effect: `harness run` runs its cell here; drop it, or let `harness sweep` "
            "place the workers of a sweep"
        )
    for text in () if placed else overrides:
        if text.lstrip("+~").startswith(_OF_JOBS) and (multirun or ".env_" not in text):
            raise ConfigError(
                f"{text} has no effect without a launcher: cells of a sweep are no jobs of Hydra's; drop it"
            )


def _unread_by_hydra(arguments: Sequence[str]) -> list[str]:
    """The arguments, with levels of factors and options as Hydra hands them on to the sweep."""
    from harness.plan.grammar import unread
    from harness.plan.make import named_levels

    named = named_levels(job_overrides(_parted(arguments)[0]))
    return [
        unread(text) if key in named or ("." in key and not key.startswith(_NOT_OURS)) else text
        for text, key in ((text, text.partition("=")[0]) for text in arguments)
    ]


def _as_it_runs(arguments: Sequence[str]) -> list[str]:
    """The arguments with everything that the first cell is run with, for `--cfg` to show.

    Beside what was typed: the levels and the seed of that cell, options of its methods, bounds of its scale
    """
    from harness.plan.grammar import value_text
    from harness.plan.make import make_plan
    from harness.store import Store

    plain = job_overrides(_parted(arguments)[0])
    others = [text for text in arguments if text not in plain and text not in ("--multirun", "-m")]
    cell = make_plan(plain, store=Store()).first.cells[0].cell
    given = {text.partition("=")[0] for text in cell.overrides}
    own = [f"{key}={value_text(value)}" for key, value in cell.settled().items() if key not in given]
    return [*others, *cell.overrides, *own]


def _task(config: Any) -> int:
    """What Hydra runs: one cell, or one worker of a sweep that was planned before."""
    from hydra.core.hydra_config import HydraConfig

    from harness.run.launch import options

    own = HydraConfig.get()
    search = [text for text in own.overrides.hydra if text.startswith(SEARCH)]
    return _run([*own.overrides.task, *search], options(dict(own.sweeper)))


def _parted(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Overrides, and flags with the words that are their values (`--config-name NAME`).

    In this order Hydra's parser takes them: it wants overrides that stand together.
    """
    overrides: list[str] = []
    flags: list[str] = []
    before = ""
    for text in arguments:
        value = before in _TAKES or (before in _MAY_TAKE and not {"=", "~"} & {*text})
        (flags if text.startswith("-") or value else overrides).append(text)
        before = text
    return overrides, flags
