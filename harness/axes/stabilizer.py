"""Stabilizer: keeps training from diverging; several may act at once."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from harness.method import Method


class Verdict(StrEnum):
    """What to do about a step."""

    proceed = "proceed"
    rollback = "rollback"
    """Return to the last checkpoint before this step and skip the data seen since."""


class Stabilizer(Method):
    """Acts through `modify_spec`, `modify_model`, `loss_terms` and `on_gradients`, and may judge steps."""

    axis = "stabilizer"
    many = True
    default = ("clip_norm",)
    logit_copies: ClassVar[int] = 0
    """Tensors of the logits' size that its terms hold at once beside what the loss holds; for plans."""

    def verdict(self, step: int, loss: float) -> Verdict:
        """What to do about step `step` (0-based); asked on logging steps, for every step since the last.

        Raises: DivergedError where nothing helps any more
        """
        return Verdict.proceed

    def state_dict(self) -> dict[str, object]:
        """What must survive a resume."""
        return {}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Restore what `state_dict` gave."""
