"""TensorBoard: event files beside the record."""

import json
from pathlib import Path
from typing import Any

from harness import Method, Tracker, hookimpl


class TensorBoard(Tracker):
    """Curves of the stages as scalars, config and metrics as text, in `tensorboard/` of the record.

    State: one writer a cell
    """

    name = "tensorboard"
    extra = "tensorboard"
    libraries = ("tensorboard",)

    def __init__(self, config: Tracker.Config | None = None) -> None:
        super().__init__(config)
        self._writer: Any = None

    def run_started(self, run: dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        directory = Path(run["directory"]) / "tensorboard"
        for old in directory.glob("events.out.tfevents.*"):
            old.unlink()
        self._writer = SummaryWriter(str(directory))
        self._writer.add_text("config", f"```json\n{json.dumps(run['config'], indent=1, default=str)}\n```")

    def training_step(self, run: dict[str, Any], stage: str, step: int, facts: dict[str, float]) -> None:
        for name, value in facts.items():
            self._scalar(f"{stage}/{name}", value, step)

    def cell_finished(self, run: dict[str, Any], record: dict[str, Any]) -> None:
        for found in record.get("metrics", []):
            self._scalar(f"{found['evaluator']}/{found['task']}/{found['metric']}", found["value"], 0)
        self._writer.add_text("outcome", json.dumps(record.get("outcome", {})))
        self._writer.close()

    def _scalar(self, name: str, value: object, step: int) -> None:
        """A point of a curve; none of what is undefined, as a mean over nothing is, or no number."""
        if isinstance(value, int | float):
            self._writer.add_scalar(name, value, step)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [TensorBoard]
