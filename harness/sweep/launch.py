"""Placing workers: here, or through a Hydra launcher (joblib, submitit, Ray), which starts workers."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from omegaconf import open_dict

from harness.errors import ConfigError, StoreError
from harness.sweep.plan import Plan
from harness.sweep.resources import Options

WORKER = "+harness.worker="
"""The override that turns a Hydra job into a worker of a plan."""
_HERE = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"


@dataclass(frozen=True, kw_only=True)
class Hydra:
    """What Hydra gives a sweeper."""

    context: Any
    task: Any
    config: Any

    @property
    def places_workers(self) -> bool:
        """Whether another launcher than Hydra's basic one was chosen."""
        return bool(self.config.hydra.launcher.get("_target_") != _HERE)


def options(values: dict[str, Any]) -> Options:
    """The options of `hydra.sweeper.*`.

    Raises: ConfigError for a value that cannot work
    """
    retry = frozenset(item.strip() for item in str(values.get("retry") or "").split(",") if item.strip())
    known = {f.name for f in fields(Options)} - {"retry"}
    chosen = {name: value for name, value in values.items() if name in known}
    for name, value in chosen.items():
        if value < 0:
            raise ConfigError(f"hydra.sweeper.{name}={value} must be 0 (automatic or no limit) or more")
    return Options(**chosen, retry=retry)


def launch(made: Plan, chosen: Options, hydra: Hydra) -> None:
    """Let the chosen launcher start workers on this plan and wait for them."""
    root = made.graph.store.root
    file = write_plan(made, chosen)
    config = hydra.config.copy()
    with open_dict(config):
        config.hydra.sweep.dir = str(root / "launcher" / made.name)
    launcher = Plugins.instance().instantiate_launcher(
        hydra_context=hydra.context, task_function=hydra.task, config=config
    )
    number = int(config.hydra.launcher.get("n_jobs", 0) or 0)
    number = number if number > 0 else max(1, min(chosen.workers or 2, len(made.first.missing()) or 1))
    launcher.launch([[f"{WORKER}{file}"]] * number, initial_job_idx=0)


def write_plan(made: Plan, chosen: Options) -> Path:
    """The plan as a file that workers on other machines read; it names this very code."""
    folder = made.graph.store.root / "plans"
    folder.mkdir(parents=True, exist_ok=True)
    content = pickle.dumps((made, chosen))
    file = folder / f"{made.name}.plan"
    temporary = file.with_suffix(".new")
    temporary.write_bytes(content)
    temporary.replace(file)
    return file


def read_plan(file: Path) -> tuple[Plan, Options]:
    """A plan that `write_plan` wrote.

    Raises: StoreError where it is missing or another version of the code wrote it
    """
    try:
        made, chosen = pickle.loads(file.read_bytes())
    except (OSError, pickle.UnpicklingError, AttributeError, ImportError, EOFError) as error:
        raise StoreError(f"{file} is no plan of this version ({error}); start the sweep again") from error
    assert isinstance(made, Plan)
    return made, chosen


def job_overrides(arguments: Iterable[str]) -> list[str]:
    """A command line without what belongs to Hydra itself."""
    return [text for text in arguments if not text.startswith(("hydra.", "hydra/"))]
