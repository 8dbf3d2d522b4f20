"""JSON lines: the run's events in one file beside its record."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import ConfigError, Method, Tracker, hookimpl


class JsonLines(Tracker):
    """Writes one JSON object an event to `events.jsonl` in the record's directory.

    State: the file begins anew with a run, which is told everything again; each line is on disk at once,
        so a killed run keeps what it logged
    """

    name = "jsonl"

    @dataclass(frozen=True, kw_only=True)
    class Config(Tracker.Config):
        every: int = 1
        """Keep every n-th logging step of the training loop."""

        def __post_init__(self) -> None:
            if self.every < 1:
                raise ConfigError(f"tracker.jsonl.every={self.every} must be at least 1")

    config: Config

    def __init__(self, config: Tracker.Config | None = None) -> None:
        super().__init__(config)
        self._steps: dict[str, int] = {}

    def run_started(self, run: dict[str, Any]) -> None:
        self._path(run).unlink(missing_ok=True)
        self._write(run, {"event": "run_started", "cell": run["cell"], "sweep": run.get("sweep", "")})

    def stage_finished(self, run: dict[str, Any], stage: str, facts: dict[str, Any]) -> None:
        self._write(run, {"event": "stage_finished", "stage": stage, "facts": facts})

    def training_step(self, run: dict[str, Any], stage: str, step: int, facts: dict[str, float]) -> None:
        seen = self._steps[stage] = self._steps.get(stage, 0) + 1
        if seen % self.config.every == 0:
            self._write(run, {"event": "training_step", "stage": stage, "step": step, **facts})

    def cell_finished(self, run: dict[str, Any], record: dict[str, Any]) -> None:
        self._write(
            run,
            {
                "event": "cell_finished",
                "outcome": record.get("outcome", {}),
                "metrics": record.get("metrics", []),
            },
        )

    def _write(self, run: dict[str, Any], event: dict[str, Any]) -> None:
        with self._path(run).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": time.time(), **event}, default=str) + "\n")

    def _path(self, run: dict[str, Any]) -> Path:
        return Path(run["directory"]) / "events.jsonl"


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [JsonLines]
