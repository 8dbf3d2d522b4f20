"""The loss curve: kept on the device between logging steps, thinned to a fixed number of points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

NO_BETTER, LEARNED, EXPLODED = 0.98, 0.9, 1.5
"""Shares of a uniform guess's loss, of the last loss, and of the first one or a uniform guess's, whichever is
larger, by which `has_collapsed` tells a training that lost what it knew."""
MAX_POINTS = 200
"""Points a record keeps."""
TAIL = 0.1
"""Share of a training, at its end, that tells where it ends."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """What happened since the last logging step."""

    losses: list[float]
    mean: float
    facts: dict[str, float]


class Curve:
    """Losses of all steps; only `read` waits for the device.

    State: all of it, through `state_dict`; call that right after `read`
    """

    def __init__(self, *, log_every: int, device: torch.device) -> None:
        self.log_every = log_every
        self.pending = torch.zeros(log_every, device=device)
        self.filled = 0
        self.facts: dict[str, float | Tensor] = {}
        self.means: list[tuple[int, float, int]] = []
        self.first: float | None = None
        self.lowest = float("inf")
        self.last: float | None = None
        self.start: float | None = None
        """Loss of the first step of all."""
        self.highest = 0.0
        """Loss of the worst single step."""

    def add(self, loss: Tensor, facts: dict[str, Any]) -> None:
        """Note one step without reading it."""
        self.pending[self.filled] = loss
        self.filled += 1
        self.facts = facts

    def read(self, step: int) -> Interval:
        """Read what is pending; `step` is the number of steps done."""
        losses: list[float] = self.pending[: self.filled].tolist()
        self.filled = 0
        facts = {name: float(value) for name, value in self.facts.items()}
        mean = sum(losses) / max(len(losses), 1)
        if losses:
            self.start = losses[0] if self.start is None else self.start
            self.highest = max(self.highest, *losses)
            self.first = mean if self.first is None else self.first
            self.last, self.lowest = mean, min(mean, self.lowest)
            self.means.append((step, mean, len(losses)))
        if len(self.means) > MAX_POINTS:
            self.means = [_join(self.means[i : i + 2]) for i in range(0, len(self.means), 2)]
        return Interval(losses=losses, mean=mean, facts=facts)

    def recent(self, num_steps: int) -> float:
        """Mean loss of the last logging intervals that hold so many steps, or of all there are.

        An interval cut short, by a checkpoint or by the end, may hold one step, which at a small batch says
        more of one text than of the model.
        """
        losses, steps = 0.0, 0
        for _, mean, count in reversed(self.means):
            losses, steps = losses + mean * count, steps + count
            if steps >= num_steps:
                break
        return losses / max(steps, 1)

    def end(self) -> float:
        """Mean loss where the training stands: of its last tenth, and at least of a logging interval."""
        return self.recent(max(self.log_every, round(TAIL * self.means[-1][0]))) if self.means else 0.0

    def has_diverged(self, factor: float) -> bool:
        """Whether the last full interval exceeds both the first and `factor` times the lowest loss."""
        if self.first is None or self.lowest <= 0:
            return False
        return self.recent(self.log_every) > max(self.first, factor * self.lowest)

    def has_collapsed(self, uniform: float) -> bool:
        """Whether its end is no better than a uniform guess, having been far from where it began.

        A rate that is far too high ends there: the weights explode, and all that is left to learn is to say
        nothing. A training that was merely short stays near its start, and is none.
        """
        if self.start is None:
            return False
        if self.end() < NO_BETTER * uniform:
            return False
        return self.lowest < LEARNED * self.end() or self.highest > EXPLODED * max(self.start, uniform)

    def points(self) -> list[tuple[int, float]]:
        """(steps done, mean loss since the point before), at most MAX_POINTS."""
        return [(step, mean) for step, mean, _ in self.means]

    def state_dict(self) -> dict[str, Any]:
        """What a resume needs."""
        return {
            name: getattr(self, name) for name in ("means", "first", "lowest", "last", "start", "highest")
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue a curve."""
        self.filled = 0
        for name, value in state.items():
            setattr(self, name, value)


def _join(points: list[tuple[int, float, int]]) -> tuple[int, float, int]:
    count = sum(n for _, _, n in points)
    return points[-1][0], sum(mean * n for _, mean, n in points) / count, count
