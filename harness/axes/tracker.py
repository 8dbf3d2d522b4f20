"""Tracker: mirrors runs to an experiment tracker; records in the store stay the truth."""

from __future__ import annotations

from typing import Any

from harness.method import Method


class Tracker(Method):
    """Receives the lifecycle hooks of one cell; another instance, the finished report of a sweep."""

    axis = "tracker"
    many = True
    default = ("jsonl",)

    def run_started(self, run: dict[str, Any]) -> None:
        """A cell begins; `run` holds id, config, sweep, provenance and the record's directory, which exists
        and is the place for files of a tracker's own."""

    def stage_finished(self, run: dict[str, Any], stage: str, facts: dict[str, Any]) -> None:
        """A stage's artifact is in the store."""

    def training_step(self, run: dict[str, Any], stage: str, step: int, facts: dict[str, float]) -> None:
        """A logging step of the training loop."""

    def cell_finished(self, run: dict[str, Any], record: dict[str, Any]) -> None:
        """The cell has its outcome."""

    def report_written(self, sweep: dict[str, Any], folder: str) -> None:
        """The report of a whole sweep lies in `folder`; `sweep` holds its name and its records' directory."""
