"""Counts what a run has consumed and says how much of its budget is spent."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch.distributed as dist

from harness.errors import ConfigError
from harness.training.contract import Batch, BatchSource, num_tokens
from harness.training.settings import Budget, Unit


@dataclass
class Meter:
    """The clock of a run.

    Units: tokens are positions that are not padding; seconds exclude checkpoints' time before a resume
    State: everything but the rates, through `state_dict`
    """

    budget: Budget
    sequences_per_epoch: int | None
    flops_per_token: float
    counts: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("steps", "sequences", "tokens", "bytes", "seconds"), 0.0)
    )
    started: float = field(default_factory=time.perf_counter)

    @classmethod
    def of(cls, source: BatchSource, budget: Budget, *, flops_per_token: float) -> Meter:
        """The meter of a source.

        Raises: ConfigError where the source has no epochs and the budget counts them
        """
        if source.num_samples is None and budget.unit is Unit.epochs:
            raise ConfigError(
                f"budget.unit=epochs cannot be counted on {type(source).__name__}, which has no end; "
                "use bytes, tokens, flops, seconds or steps"
            )
        return cls(budget, source.num_samples, flops_per_token)

    def spent(self) -> float:
        """Share of the budget that is spent; may pass 1 with the last batch."""
        counts, unit = self.counts, self.budget.unit
        amount = {
            Unit.steps: counts["steps"],
            Unit.tokens: counts["tokens"],
            Unit.bytes: counts["bytes"],
            Unit.flops: counts["tokens"] * self.flops_per_token,
            Unit.epochs: counts["sequences"] / (self.sequences_per_epoch or 1),
            Unit.seconds: self.seconds(),
        }[unit]
        # Half a billionth is forgiven, so that 3 x 0.1 epochs are 0.3.
        return amount / self.budget.amount + 5e-10

    def seconds(self) -> float:
        """Time spent training, over all attempts; where it is the budget, processes go by the first one's."""
        seconds = self.counts["seconds"] + time.perf_counter() - self.started
        if self.budget.unit is Unit.seconds and dist.is_initialized():
            shared = [seconds]
            dist.broadcast_object_list(shared, src=0)
            return shared[0]
        return seconds

    def add(self, batch: Batch, size: int) -> None:
        """Count one global batch.

        Raises: ConfigError where the budget counts bytes and the batch does not state them
        """
        self.counts["steps"] += 1
        self.counts["sequences"] += size
        stated = batch.get("num_tokens")
        self.counts["tokens"] += num_tokens(batch) if stated is None else int(stated.sum())
        if "num_bytes" in batch:
            self.counts["bytes"] += float(batch["num_bytes"].sum())
        elif self.budget.unit is Unit.bytes:
            raise ConfigError(
                "budget.unit=bytes cannot be counted: these batches do not state `num_bytes`; "
                "use tokens, flops, seconds, epochs or steps"
            )

    def restart_clock(self) -> None:
        """Keep the seconds so far and count on from now."""
        self.counts["seconds"], self.started = self.seconds(), time.perf_counter()

    def facts(self) -> dict[str, float]:
        """Measured facts of the run."""
        tokens = self.counts["tokens"]
        facts = {
            "steps": int(self.counts["steps"]),
            "sequences": int(self.counts["sequences"]),
            "tokens": int(tokens),
            "seconds": self.seconds(),
            "flops": tokens * self.flops_per_token,
        }
        if self.counts["bytes"]:
            facts["bytes"] = round(self.counts["bytes"])
        if self.sequences_per_epoch:
            facts["epochs"] = self.counts["sequences"] / self.sequences_per_epoch
        return facts

    def state_dict(self) -> dict[str, Any]:
        """What a resume needs."""
        return {**self.counts, "seconds": self.seconds()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue counting."""
        self.counts, self.started = dict(state), time.perf_counter()
