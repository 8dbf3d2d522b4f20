"""Schedules against transformers', step by step."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from harness.errors import ConfigError
from harness.registry.known import registry

TOTAL, WARMUP = 200, 20

CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "constant": ("constant_with_warmup", {}, {}),
    "cosine": ("cosine_with_min_lr", {"min_lr_rate": 0.1}, {}),
    "linear": ("linear", {}, {"final_share": 0.0}),
    "polynomial": ("polynomial", {"lr_end": 0.2, "power": 3.0}, {"final_share": 0.2, "power": 3.0}),
    "inverse_sqrt": ("inverse_sqrt", {"timescale": 30}, {"timescale_share": 0.15}),
    "warmup_stable_decay": (
        "warmup_stable_decay",
        # transformers warms up from the final rate, we from 0: compare where the final rate is 0.
        {"num_decay_steps": 50, "min_lr_ratio": 0.0},
        {"decay_share": 0.25, "shape": "cosine", "final_share": 0.0},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_every_step_equals_transformers(name: str) -> None:
    from transformers import get_scheduler

    theirs, options, ours = CASES[name]
    method: Any = registry().get("schedule", name)
    if "shape" in ours:
        ours = {**ours, "shape": type(method.Config().shape)[ours["shape"]]}
    schedule = method(method.Config(warmup_share=WARMUP / TOTAL, **ours))
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    training = {} if theirs in ("constant_with_warmup", "inverse_sqrt") else {"num_training_steps": TOTAL}
    scheduler = get_scheduler(
        theirs, optimizer, num_warmup_steps=WARMUP, scheduler_specific_kwargs=options, **training
    )
    for step in range(TOTAL):
        assert schedule.factor(step / TOTAL, step, TOTAL) == pytest.approx(
            scheduler.get_last_lr()[0], abs=1e-12
        ), f"step {step}"
        optimizer.step()
        scheduler.step()


def test_impossible_shares_are_refused() -> None:
    known = registry()
    with pytest.raises(ConfigError, match=r"warmup_share=2 is a share of the run and must lie in \[0, 1\)"):
        known.get("schedule", "cosine").Config(warmup_share=2)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match=r"final_share=-0.1 must lie in \[0, 1\]"):
        known.get("schedule", "linear").Config(final_share=-0.1)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="power=0 must be positive"):
        known.get("schedule", "polynomial").Config(power=0)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match=r"decay_share=0.9 must be positive and leave room"):
        known.get("schedule", "warmup_stable_decay").Config(warmup_share=0.2, decay_share=0.9)  # type: ignore[call-arg]
