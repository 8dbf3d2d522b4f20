"""Trainings that came to their end and taught nothing, which no loss on the way told."""

from __future__ import annotations

import math

from harness.errors import DivergedError
from harness.ops.loss_scaler import LossScaler
from harness.training.curve import Curve


def refuse_collapse(curve: Curve, *, vocab_size: int, steps: int, learning_rate: float) -> None:
    """Refuse a model that ends where guessing uniformly over the vocabulary would.

    Raises: DivergedError
    """
    uniform = math.log(vocab_size)
    if curve.has_collapsed(uniform):
        raise DivergedError(
            steps,
            f"the loss {curve.end():.4g} is that of a uniform guess among {vocab_size} tokens "
            f"(ln {vocab_size} = {uniform:.4g}), after {curve.highest:.4g} in its worst step and "
            f"{curve.lowest:.4g} at its best; try a learning_rate below {learning_rate:g}",
        )


def refuse_overflows(scaler: LossScaler, *, steps: int) -> None:
    """Refuse a model of which no step changed a weight.

    Raises: DivergedError
    """
    if scaler.skipped_steps >= steps:
        raise DivergedError(
            steps,
            f"gradients overflowed in each of its {steps} steps, which were skipped, so that nothing was "
            f"learned; try precision.initial_scale={scaler.get_scale():g} or less, or more steps",
        )
