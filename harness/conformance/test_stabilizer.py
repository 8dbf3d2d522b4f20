"""What every stabilizer must do."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path

import torch

from harness.axes.stabilizer import Stabilizer, Verdict
from harness.conformance._compare import close
from harness.conformance.tiny import TinyModel, TinySource, methods, run
from harness.spec import ModelSpec
from harness.training.gradients import Gradients
from harness.training.losses import language_modeling_loss
from harness.training.methods import acts

AXIS = "stabilizer"

POINTS = ("verdict", "loss_terms", "on_gradients", "modify_model", "modify_spec")


def test_it_acts(method: type[Stabilizer]) -> None:
    contract = {name: getattr(Stabilizer, name) for name in POINTS}
    own = [
        name
        for name in POINTS
        if getattr(getattr(method, name), "__func__", getattr(method, name))
        is not getattr(contract[name], "__func__", contract[name])
    ]
    assert own, f"it implements none of {', '.join(POINTS)}"


def test_training_with_it_stays_finite_and_learns(method: type[Stabilizer]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        model, facts = run(
            Path(folder), methods=methods(stabilizers=(method(),)), steps=60, checkpoint_every=20
        )
    assert facts["final_loss"] < 0.9 * facts["first_loss"], "training with it does not learn"
    assert all(bool(p.isfinite().all()) for p in model.parameters()), (
        "training with it ends in weights that are not finite"
    )


def test_a_calm_run_is_left_alone(method: type[Stabilizer]) -> None:
    stabilizer = method()
    for step in range(300):
        loss = 5.0 * math.exp(-step / 100) + 0.1 * math.sin(step)
        assert stabilizer.verdict(step, loss) is Verdict.proceed, f"a calm run was stopped at step {step}"


def test_its_state_survives_as_json(method: type[Stabilizer]) -> None:
    stabilizer = method()
    for step in range(30):
        stabilizer.verdict(step, 3.0)
    state = json.loads(json.dumps(stabilizer.state_dict()))
    other = method()
    other.load_state_dict(state)
    assert other.state_dict() == stabilizer.state_dict(), "state_dict is not what load_state_dict read"
    losses = [4.0, 3.0, 4.0, 300.0]
    assert [stabilizer.verdict(i, v) for i, v in enumerate(losses)] == [
        other.verdict(i, v) for i, v in enumerate(losses)
    ], "a loaded stabilizer judges otherwise: state is missing from state_dict()"


def test_its_terms_do_not_depend_on_the_accumulation(method: type[Stabilizer]) -> None:
    found = []
    for micro in (8, 2):
        model = TinyModel().double()
        chosen = methods(stabilizers=(method(),))
        gradients = Gradients(
            model,
            language_modeling_loss,
            chosen,
            device=torch.device("cpu"),
            micro_batch_size=micro,
            scaler=None,
        )
        batch = TinySource().next(8)
        batch.pop("num_bytes")
        gradients.compute(batch, 8)
        facts = chosen.stabilizers[0].on_gradients(model, 0)
        assert all(math.isfinite(float(value)) for value in facts.values()), "a fact is not finite"
        found.append([p.grad for p in model.parameters()])
    for left, right in zip(*found, strict=True):
        # A term in float32 carries its rounding into the sum.
        why = "a loss term depends on how the batch is cut: average over the items that the loop counts"
        close(left, right, why, rtol=1e-4, atol=1e-7)


def test_a_changed_spec_is_still_a_spec(method: type[Stabilizer]) -> None:
    spec = ModelSpec(vocab_size=10)
    changed = method.modify_spec(method.Config(), spec)
    assert isinstance(changed, ModelSpec), "modify_spec must return a ModelSpec: use dataclasses.replace"
    if acts(method, "verdict", "loss_terms", "on_gradients"):
        return
    assert changed != spec, "it acts through modify_spec and changes nothing"
