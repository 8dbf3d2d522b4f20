"""The training loop: exact averages, resume, divergence, budgets, facts."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import warm

from harness.conformance.tiny import FakeRun, TinyModel, TinySource, methods
from harness.data.template import IGNORED
from harness.errors import ConfigError, DivergedError
from harness.registry.known import registry
from harness.training.gradients import Gradients
from harness.training.loop import train
from harness.training.losses import language_modeling_loss
from harness.training.measure import padded_tokens, scored_tokens, source_tokens
from harness.training.settings import Budget, Settings, Unit


def settings(**options: object) -> Settings:
    base = {
        "learning_rate": 1e-2,
        "budget": Budget(unit=Unit.steps, amount=12),
        "batch_size": 8,
        "sequence_length": 12,
        "log_every": 4,
        "checkpoint_every": None,
    }
    return Settings(**{**base, **options})  # type: ignore[arg-type]


def gradients_of(micro: int) -> dict[str, torch.Tensor]:
    model = TinyModel().double()
    made = Gradients(
        model,
        language_modeling_loss,
        methods(),
        device=torch.device("cpu"),
        micro_batch_size=micro,
        scaler=None,
    )
    batch = TinySource().next(8)
    batch.pop("num_bytes")
    made.compute(batch, 8)
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_gradients_do_not_depend_on_the_accumulation() -> None:
    whole = gradients_of(8)
    for micro in (1, 2, 3, 5):
        for name, gradient in gradients_of(micro).items():
            torch.testing.assert_close(gradient, whole[name], rtol=1e-12, atol=1e-14)


def test_training_lowers_the_loss_and_measures(tmp_path: Path) -> None:
    work = FakeRun(tmp_path)
    budget = Budget(unit=Unit.steps, amount=60)
    facts = train(
        TinyModel(),
        TinySource(),
        language_modeling_loss,
        work=work,
        settings=settings(budget=budget),
        methods=methods(),
    )
    assert facts["final_loss"] < 0.7 * facts["first_loss"]
    assert facts["steps"] == 60
    assert facts["sequences"] == 480
    assert facts["tokens"] == 480 * 12
    assert facts["bytes"] == 480 * 36
    assert facts["peak_memory"] > sum(p.numel() for p in TinyModel().parameters()) * 4 * 3
    assert 0 < facts["mfu"] < 1
    assert [step for step, _ in work.seen] == list(range(4, 61, 4))
    assert {"loss", "learning_rate", "tokens_per_second", "progress"} <= work.seen[0][1].keys()


def test_steps_that_overflow_are_counted_and_one_at_least_must_not(tmp_path: Path) -> None:
    def half(exponent: int, steps: int, folder: str) -> dict[str, Any]:
        fp16: Any = registry().get("precision", "fp16")
        budget = Budget(unit=Unit.steps, amount=steps)
        return train(
            TinyModel(),
            TinySource(),
            language_modeling_loss,
            work=FakeRun(tmp_path / folder),
            settings=settings(budget=budget, log_every=1, checkpoint_every=2, spike_factor=None),
            methods=methods(precision=fp16(fp16.Config(initial_scale=2.0**exponent))),
        )

    assert half(0, 4, "small")["skipped_steps"] == 0
    with pytest.raises(DivergedError, match=r"each of its 4 steps.*initial_scale=6.71089e\+07 or less"):
        half(30, 4, "large")
    found = half(25, 12, "between")["skipped_steps"]
    assert 4 < found < 12, "the scale is halved until a step holds"
    with pytest.raises(DivergedError):
        half(25, 4, "resumed")
    assert half(25, 12, "resumed")["skipped_steps"] == found


@pytest.mark.parametrize(
    ("unit", "amount", "steps"),
    [
        ("steps", 5, 5),
        ("tokens", 5 * 96, 5),
        ("tokens", 5 * 96 + 1, 6),
        ("bytes", 2 * 8 * 36, 2),
        ("epochs", 0.5, 4),
        ("steps", 0.01, 1),
    ],
)
def test_budgets_end_where_they_say(tmp_path: Path, unit: str, amount: float, steps: int) -> None:
    facts = train(
        TinyModel(),
        TinySource(),
        language_modeling_loss,
        work=FakeRun(tmp_path),
        settings=settings(budget=Budget(unit=Unit[unit], amount=amount)),
        methods=methods(),
    )
    assert facts["steps"] == steps


def test_a_budget_in_seconds_ends_and_moves_the_schedule(tmp_path: Path) -> None:
    work = FakeRun(tmp_path)
    facts = train(
        TinyModel(),
        TinySource(),
        language_modeling_loss,
        work=work,
        settings=settings(budget=Budget(unit=Unit.seconds, amount=0.3), log_every=1),
        methods=methods(),
    )
    assert 0.3 <= facts["seconds"] < 3
    rates = [seen["learning_rate"] for _, seen in work.seen]
    assert max(rates) > 5 * rates[-1]


def test_a_loss_that_is_not_finite_names_its_step(tmp_path: Path) -> None:
    calls = 0

    def broken(model: torch.nn.Module, batch: dict[str, torch.Tensor]):  # type: ignore[no-untyped-def]
        nonlocal calls
        calls += 1
        result = language_modeling_loss(model, batch)
        return result._replace(total=result.total * (math.nan if calls == 6 else 1))

    with pytest.raises(DivergedError) as error:
        train(
            TinyModel(),
            TinySource(),
            broken,
            work=FakeRun(tmp_path),
            settings=settings(),
            methods=methods(),
        )
    assert error.value.step == 5


def test_a_loss_that_explodes_is_divergence(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match="exceeds its start"):
        train(
            TinyModel(),
            TinySource(),
            language_modeling_loss,
            work=FakeRun(tmp_path),
            settings=settings(learning_rate=30.0, budget=Budget(unit=Unit.steps, amount=100)),
            methods=methods(),
        )


def test_scored_positions_are_those_of_the_micro_batch_with_the_most_labels() -> None:
    labels = torch.full((4, 6), IGNORED)
    labels[0, :5] = labels[2, :2] = labels[3, :4] = 1
    batch = {"chosen_labels_BT": labels, "rejected_labels_BT": labels[:, :4], "chosen_input_ids": labels}
    assert scored_tokens(batch, sequences=4) == 11 + 10
    assert scored_tokens(batch, sequences=2) == 6 + 6
    assert scored_tokens({"input_ids": labels}, sequences=2) == 0


def test_sources_and_targets_have_widths_of_their_own_and_parts_of_a_pair_have_not() -> None:
    wide, narrow = torch.zeros(4, 9), torch.zeros(4, 5)
    assert padded_tokens({"input_ids": narrow, "encoder_input_ids": wide}, sequences=2) == 2 * (9 + 5)
    assert source_tokens({"input_ids": narrow, "encoder_input_ids": wide}, sequences=2) == 2 * 9
    assert padded_tokens({"chosen_input_ids": wide, "rejected_input_ids": narrow}, sequences=3) == 3 * 2 * 9
    assert source_tokens({"input_ids": wide}, sequences=2) == 0


def test_micro_batches_shrink_until_they_fit(tmp_path: Path) -> None:
    def hungry(model: torch.nn.Module, batch: dict[str, torch.Tensor]):  # type: ignore[no-untyped-def]
        if len(batch["input_ids"]) > 3:
            raise torch.OutOfMemoryError("no room")
        return language_modeling_loss(model, batch)

    runs = {}
    for name, loss in {"hungry": hungry, "plain": language_modeling_loss}.items():
        model = TinyModel().double()
        facts = train(
            model,
            TinySource(),
            loss,
            work=FakeRun(tmp_path / name),
            settings=settings(),
            methods=methods(),
        )
        runs[name] = (facts, model)
    assert runs["hungry"][0]["micro_batch_size"] == 2
    assert runs["hungry"][0]["tokens"] == runs["plain"][0]["tokens"]
    for left, right in zip(*(model.parameters() for _, model in runs.values()), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-7, atol=1e-9)


CHILD = """
import os, signal, sys
from pathlib import Path
import torch
from harness.conformance.tiny import FakeRun, TinyModel, TinySource
from harness.training.loop import train
from harness.training.losses import language_modeling_loss
from harness.training.methods import Methods
from harness.training.settings import Budget, Settings, Unit
from harness_plugins.batch_schedule.constant import Constant
from harness_plugins.optimizer.adamw import AdamW
from harness_plugins.parallelism.single import Single
from harness_plugins.precision.fp32 import Fp32
from harness_plugins.schedule.cosine import Cosine
from harness_plugins.stabilizer.clip_norm import ClipNorm

folder, kill_at = Path(sys.argv[1]), int(sys.argv[2])

class Killed(FakeRun):
    def on_step(self, step, facts):
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

methods = Methods(optimizer=AdamW(), schedule=Cosine(), batch_schedule=Constant(), precision=Fp32(),
                  parallelism=Single(), stabilizers=(ClipNorm(),))
settings = Settings(budget=Budget(unit=Unit.steps, amount=20), learning_rate=1e-2, batch_size=8,
                    sequence_length=12, log_every=1, checkpoint_every=3)
model = TinyModel(dropout=0.2)
train(model, TinySource(), language_modeling_loss, work=Killed(folder), methods=methods, settings=settings)
torch.save(model.state_dict(), folder / "final.pt")
"""


def run_child(folder: Path, kill_at: int) -> int:
    folder.mkdir(exist_ok=True)
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root}:{root / 'plugins'}", "OMP_NUM_THREADS": "1"}
    return warm.run(["-c", CHILD, str(folder), str(kill_at)], cwd=root, environment=environment).returncode


def test_a_killed_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    assert run_child(tmp_path / "whole", 0) == 0
    assert run_child(tmp_path / "killed", 8) == -signal.SIGKILL
    assert run_child(tmp_path / "killed", 14) == -signal.SIGKILL
    assert run_child(tmp_path / "killed", 0) == 0
    whole, killed = (torch.load(tmp_path / name / "final.pt") for name in ("whole", "killed"))
    for name, value in whole.items():
        assert torch.equal(value, killed[name]), name


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"budget.amount=0 must be positive"):
        Budget(unit=Unit.tokens, amount=0)
    with pytest.raises(ConfigError, match="learning_rate=-1"):
        settings(learning_rate=-1)
    with pytest.raises(ConfigError, match="micro_batch_size=9 must lie between 1 and batch_size=8"):
        settings(micro_batch_size=9)
