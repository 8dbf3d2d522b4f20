"""Tuning with every peft method, ended within a step and resumed anew, ends as if it had not been."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch

from harness.axes.peft import OnPacked
from harness.conformance.causal import causal_model, packed
from harness.conformance.tiny import FakeRun, TinySource, methods
from harness.registry.known import registry
from harness.training.loop import train
from harness.training.losses import language_modeling_loss
from harness.training.settings import Budget, Settings, Unit

STEPS, LENGTH = 9, 12
DROPOUT = {"dropout": 0.2}
OPTIONS: dict[str, dict[str, Any]] = {
    "adalora": {"rank": 4, "target_rank": 2},
    "oft": {"block_size": 8, **DROPOUT},
    "boft": {"block_size": 4, **DROPOUT},
    **{n: {"rank": 4, **DROPOUT} for n in ("lora", "rslora", "pissa", "loftq", "lora_plus", "dora")},
}


class KilledError(Exception):
    """What ends a process in the middle of a step."""


class Killed(FakeRun):
    """Dies as it reports a step."""

    at = STEPS + 1

    def on_step(self, step: int, facts: dict[str, float]) -> None:
        if step >= self.at:
            raise KilledError


def attempt(name: str, folder: Path, *, die_at: int, seed: int) -> tuple[dict[str, Any], Any]:
    """One process: put the adapter on the base anew, and train from the last checkpoint there is.

    `seed` is the process's own, of all that is drawn outside the run's streams.
    """
    torch.manual_seed(seed)
    choice = tiny.choose("peft", name, **OPTIONS.get(name, {}))
    method: Any = choice.build()
    method.before_packing = causal_model
    base = causal_model().requires_grad_(False)
    model = method.apply(packed(base) if method.on_packed is OnPacked.required else base)
    work = Killed(folder, choices={"peft": choice})
    work.at = die_at
    facts = train(
        model,
        TinySource(length=LENGTH),
        language_modeling_loss,
        work=work,
        settings=Settings(
            budget=Budget(unit=Unit.steps, amount=STEPS),
            learning_rate=1e-2,
            batch_size=8,
            sequence_length=LENGTH,
            log_every=1,
            checkpoint_every=1,
            spike_factor=None,
        ),
        methods=methods(others=(method,)),
    )
    return model.state_dict(), facts["loss_curve"]


@pytest.mark.parametrize("name", sorted(set(registry().methods("peft")) - {"none"}))
def test_killed_and_resumed_is_uninterrupted(name: str, tmp_path: Path) -> None:
    whole, curve = attempt(name, tmp_path / "whole", die_at=STEPS + 1, seed=0)
    with pytest.raises(KilledError):
        attempt(name, tmp_path / "killed", die_at=3, seed=0)
    with pytest.raises(KilledError):
        attempt(name, tmp_path / "killed", die_at=7, seed=1)
    resumed, again = attempt(name, tmp_path / "killed", die_at=STEPS + 1, seed=2)
    assert again == curve
    assert len(curve) == STEPS
    for key, value in whole.items():
        assert torch.equal(value, resumed[key]), key
