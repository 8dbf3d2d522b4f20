"""Weights & Biases: mirrors a cell as a run, offline unless asked."""

import netrc
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from torch import nn

from harness import Method, Problem, Tracker, hookimpl


class Mode(StrEnum):
    """Where runs go."""

    offline = "offline"
    """To a folder; `wandb sync` sends them later."""
    online = "online"
    """To the server while they run."""


class Wandb(Tracker):
    """One run a cell: its config, curves, metrics as summary; and one run with a sweep's report as artifact.

    State: one wandb run a cell, grouped by sweep; the run's id is the cell's id
    """

    name = "wandb"

    @dataclass(frozen=True, kw_only=True)
    class Config(Tracker.Config):
        mode: Mode = Mode.offline
        """`offline`, or `online`, which needs a login."""
        project: str = ""
        """Project; empty = harness."""
        entity: str = ""
        """Team or user; empty = your default."""
        base_url: str = ""
        """Server; empty = $WANDB_BASE_URL, else wandb.ai."""

    config: Config

    def __init__(self, config: Tracker.Config | None = None) -> None:
        super().__init__(config)
        self._run: Any = None
        self._defined: set[str] = set()

    @classmethod
    def check(cls, config: Any, cell: Any, meta_model: nn.Module | None) -> Iterable[Problem]:
        if config.mode is Mode.online and not logged_in(server(config.base_url)):
            yield Problem(
                where="tracker.wandb.mode",
                message=f"online needs a login at {server(config.base_url)}: run `wandb login`, set "
                "WANDB_API_KEY, or keep tracker.wandb.mode=offline and `wandb sync` later",
            )

    def run_started(self, run: dict[str, Any]) -> None:
        levels = [f"{factor}={level}" for factor, level in run.get("levels", {}).items()]
        self._run = self._init(
            run,
            job_type=", ".join(levels) or "cell",
            name=", ".join([*levels, f"seed={run.get('seed', 0)}"]),
            id=run["cell"],
            resume="allow" if self.config.mode is Mode.online else None,
            config={"cell": run["cell"], "overrides": run.get("overrides", []), **run["config"]},
        )

    def stage_finished(self, run: dict[str, Any], stage: str, facts: dict[str, Any]) -> None:
        for name, value in facts.items():
            if isinstance(value, int | float | str | bool):
                self._run.summary[f"{stage}/{name}"] = value

    def training_step(self, run: dict[str, Any], stage: str, step: int, facts: dict[str, float]) -> None:
        if stage not in self._defined:
            self._defined.add(stage)
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
        self._run.log({f"{stage}/step": step} | {f"{stage}/{name}": value for name, value in facts.items()})

    def cell_finished(self, run: dict[str, Any], record: dict[str, Any]) -> None:
        for found in record.get("metrics", []):
            key = f"{found['evaluator']}/{found['task']}/{found['metric']}"
            self._run.summary[key] = found["value"]
            if found.get("stderr") is not None:
                self._run.summary[f"{key}_stderr"] = found["stderr"]
        status = record.get("outcome", {}).get("status", "ok")
        self._run.summary["outcome"] = status
        self._run.finish(exit_code=0 if status == "ok" else 1)

    def report_written(self, sweep: dict[str, Any], folder: str) -> None:
        import wandb

        name = re.sub(r"[^\w.-]+", "-", sweep["sweep"])
        run = self._init(sweep, job_type="report", name=f"{sweep['sweep']}: report")
        # A copy beside the run: `wandb sync` may come after the report was made again.
        copy = shutil.copytree(folder, Path(run.dir).parent / "report")
        artifact = wandb.Artifact(f"{name}-report", type="report")
        for file in sorted(path for path in copy.rglob("*") if path.is_file()):
            artifact.add_file(str(file), name=file.relative_to(copy).as_posix(), policy="immutable")
        run.log_artifact(artifact)
        run.finish()

    def _init(self, run: dict[str, Any], **options: Any) -> Any:
        """A wandb run in the group of its sweep, its files below the run's directory."""
        import wandb

        directory = Path(run["directory"])
        directory.mkdir(parents=True, exist_ok=True)
        settings: dict[str, Any] = {"silent": True, "console": "off", "x_disable_stats": True}
        if self.config.base_url:
            settings["base_url"] = self.config.base_url
        return wandb.init(
            mode=self.config.mode.value,
            project=self.config.project or "harness",
            entity=self.config.entity or None,
            group=run.get("sweep") or None,
            dir=str(directory),
            reinit="create_new",
            settings=wandb.Settings(**settings),
            **options,
        )


def server(base_url: str) -> str:
    """The server runs would go to."""
    return base_url or os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"


def logged_in(url: str) -> bool:
    """Whether a key for a server is at hand: in the environment, or where `wandb login` writes it."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    path = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    try:
        return path.is_file() and netrc.netrc(path).authenticators(urlparse(url).hostname or url) is not None
    except (netrc.NetrcParseError, OSError):
        return False


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Wandb]
