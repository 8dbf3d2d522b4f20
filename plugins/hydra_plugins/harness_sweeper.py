"""Hydra's door to harness/commands/sweep.py: `python -m harness -m attention=full,grouped_query seed=0,1`."""

import sys
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class HarnessSweeperConf:
    """How a sweep runs, `hydra.sweeper.workers=2`; nothing here changes a result."""

    _target_: str = "hydra_plugins.harness_sweeper.HarnessSweeper"
    workers: int | None = None
    threads: int | None = None  # refused, with what to use in its place
    timeout: float | None = None
    memory: int | None = None
    total_memory: int | None = None
    patience: float | None = 600.0
    retry: str = ""


class HarnessSweeper(Sweeper):  # type: ignore[misc]
    """Plans all cells at once, then works through them here or in the workers that a launcher places."""

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._config: DictConfig | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what a launcher needs."""
        self._context, self._task, self._config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> None:
        """Run the sweep; a sweep in which some cells have no result ends with exit code 1."""
        from harness.commands import sweep
        from harness.report.commands import after_sweep

        assert self._config is not None
        code = sweep.multirun(
            arguments,
            sweep.options(self._options),
            hydra=sweep.Hydra(context=self._context, task=self._task, config=self._config),
            finished=after_sweep,
        )
        if code:
            sys.exit(code)


ConfigStore.instance().store(
    group="hydra/sweeper", name="harness", node=HarnessSweeperConf, provider="harness"
)
