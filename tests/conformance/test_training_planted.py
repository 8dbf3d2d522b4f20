"""Planted bugs: the suites of schedule, batch_schedule, stabilizer and precision must fail on each."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from told import told

from harness.axes.batch_schedule import BatchSchedule
from harness.axes.precision import Precision
from harness.axes.schedule import Schedule
from harness.axes.stabilizer import Stabilizer, Verdict
from harness.conformance import (
    test_batch_schedule,
    test_precision,
    test_schedule,
    test_stabilizer,
)
from harness.method import LossTerm, Method


class Overshoot(Schedule):
    """Ends above the peak."""

    name = "overshoot"

    def decay(self, progress: float) -> float:
        return 1 + progress


class Restart(Schedule):
    """Jumps back up."""

    name = "restart"

    def decay(self, progress: float) -> float:
        return 1 - progress if progress < 0.5 else 1.5 - progress


class Counting(Schedule):
    """Decays by steps, whatever the length of the run."""

    name = "counting"

    def factor(self, progress: float, step: int, total_steps: int) -> float:
        return 1 / (1 + step / 1000)

    def decay(self, progress: float) -> float:
        return 1.0


class Fractional(BatchSchedule):
    """Returns floats."""

    name = "fractional"

    def batch_size(self, final: int, progress: float) -> int:
        return max(1.0, final * progress)  # type: ignore[return-value]


class Unfinished(BatchSchedule):
    """Never gets to the full batch."""

    name = "unfinished"

    def batch_size(self, final: int, progress: float) -> int:
        return max(1, final // 2)


class Idle(Stabilizer):
    """Does nothing."""

    name = "idle"


class Nervous(Stabilizer):
    """Rolls back whenever the loss rises at all, and forgets."""

    name = "nervous"
    last = float("inf")

    def verdict(self, step: int, loss: float) -> Verdict:
        rises, self.last = loss > self.last, loss
        return Verdict.rollback if rises else Verdict.proceed


class Summed(Stabilizer):
    """Adds a term that is a sum, not a mean."""

    name = "summed"

    def loss_terms(self, outputs: Any, batch: Any) -> list[LossTerm]:
        return [LossTerm(name="sum", value=outputs["logits"].square().sum())]


class Half(Precision):
    """Says bf16 and computes in fp32."""

    name = "half"

    def autocast(self, device_type: str) -> AbstractContextManager[Any]:
        return nullcontext()

    def compute_dtype(self) -> torch.dtype:
        return torch.bfloat16


class Coarse(Precision):
    """Rounds everything to a few bits."""

    name = "coarse"

    def autocast(self, device_type: str) -> AbstractContextManager[Any]:
        class Rounding(torch.overrides.TorchFunctionMode):
            def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                out = func(*args, **(kwargs or {}))
                if func is torch.nn.functional.linear:
                    return out + ((out * 2).round() / 2 - out).detach()
                return out

        return Rounding()


CASES: list[tuple[type[Method], Callable[[Any], None]]] = [
    (Overshoot, test_schedule.test_the_factor_stays_between_zero_and_one),
    (Overshoot, test_schedule.test_it_never_rises_after_the_warm_up),
    (Restart, test_schedule.test_it_does_not_jump),
    (Counting, test_schedule.test_it_follows_progress_and_not_the_unit_of_the_budget),
    (Counting, test_schedule.test_the_warm_up_rises_in_a_straight_line_from_zero),
    (Counting, test_schedule.test_it_reaches_the_peak_after_the_warm_up),
    (Fractional, test_batch_schedule.test_batches_are_whole_and_never_larger_than_the_stages),
    (Unfinished, test_batch_schedule.test_it_ends_on_the_full_batch),
    (Idle, test_stabilizer.test_it_acts),
    (Nervous, test_stabilizer.test_a_calm_run_is_left_alone),
    (Nervous, test_stabilizer.test_its_state_survives_as_json),
    (Summed, test_stabilizer.test_its_terms_do_not_depend_on_the_accumulation),
    (Half, test_precision.test_products_run_in_the_stated_format),
    (Coarse, test_precision.test_gradients_are_near_those_of_fp32),
]


@pytest.mark.parametrize(("broken", "test"), CASES, ids=lambda value: value.__name__)
def test_the_suite_finds(broken: type[Method], test: Callable[[Any], None]) -> None:
    with told():
        test(broken)
