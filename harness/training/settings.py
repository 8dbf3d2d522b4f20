"""The options of every stage that trains: budget, batch, learning rate, and how often to look up."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from harness.errors import ConfigError


class Unit(Enum):
    """What a budget counts."""

    bytes = "bytes"
    tokens = "tokens"
    flops = "flops"
    seconds = "seconds"
    epochs = "epochs"
    steps = "steps"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How long to train. The schedule follows the share of it that is spent, whatever the unit."""

    unit: Unit = Unit.bytes
    """bytes (fair across tokenizers), tokens, flops, seconds, epochs or steps."""
    amount: float = 1e6
    """How many of them; at least one step is taken."""

    def __post_init__(self) -> None:
        if not 0 < self.amount < float("inf"):
            raise ConfigError(f"budget.amount={self.amount} must be positive and finite")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Options of one training run."""

    learning_rate: float = 1e-3
    """Peak learning rate; the schedule multiplies it."""
    budget: Budget = Budget()
    """How long to train."""
    batch_size: int = 16
    """Sequences in one global batch, over all processes and micro-batches."""
    micro_batch_size: int | None = None
    """Sequences computed at once by one process; null = as many as fit, found by halving on OOM."""
    sequence_length: int = 256
    """Tokens of one sequence."""
    log_every: int = 10
    """Steps between logging steps, the only ones where the host waits for the device."""
    checkpoint_every: int | None = 200
    """Steps between checkpoints; null keeps none."""
    spike_factor: float | None = 2.0
    """Training has diverged when the loss of a logging interval exceeds its first value and this multiple
    of its lowest; null looks for non-finite losses only."""
    recompute: bool = False
    """Recompute activations in the backward pass instead of keeping them: less memory, more time."""
    compile: bool = False
    """Compile each block (torch.compile): faster steps after seconds of compilation, which are counted and
    stated; sums are rounded in another order."""

    def __post_init__(self) -> None:
        positive = {
            name: getattr(self, name)
            for name in ("learning_rate", "batch_size", "sequence_length", "log_every")
        }
        for name, value in positive.items():
            if not value > 0:
                raise ConfigError(f"{name}={value} must be positive")
        if self.checkpoint_every is not None and self.checkpoint_every < 1:
            raise ConfigError(
                f"checkpoint_every={self.checkpoint_every} must be at least 1, or null to keep no checkpoints"
            )
        if self.micro_batch_size is not None and not 0 < self.micro_batch_size <= self.batch_size:
            raise ConfigError(
                f"micro_batch_size={self.micro_batch_size} must lie between 1 and "
                f"batch_size={self.batch_size}"
            )
        if self.spike_factor is not None and self.spike_factor <= 1:
            raise ConfigError(f"spike_factor={self.spike_factor} must exceed 1, or be null")
