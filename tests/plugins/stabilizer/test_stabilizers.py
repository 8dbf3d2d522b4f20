"""Stabilizers: facts of each."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.conformance.tiny import TinyModel, TinySource, methods, run
from harness.errors import ConfigError, DivergedError
from harness.registry.known import registry
from harness.spec import ModelSpec
from harness.training.losses import language_modeling_loss


def build(name: str, **options: Any) -> Any:
    method = registry().get("stabilizer", name)
    return method(method.Config(**options))


def test_clip_norm_scales_to_the_maximum_and_reports_the_norm() -> None:
    model = TinyModel()
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    count = sum(p.numel() for p in model.parameters())
    facts = build("clip_norm", max_norm=0.5).on_gradients(model, 0)
    assert float(facts["gradient_norm"]) == pytest.approx(math.sqrt(count), rel=1e-5)
    norm = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm()
    assert float(norm) == pytest.approx(0.5, rel=1e-4)


def test_z_loss_is_the_papers_formula() -> None:
    logits = torch.randn(2, 3, 5, dtype=torch.float32)
    labels = torch.tensor([[1, -100, 2], [-100, -100, 0]])
    (term,) = build("z_loss", weight=0.01).loss_terms({"logits": logits}, {"labels_BT": labels})
    values = [math.log(sum(math.exp(v) for v in logits[b, t])) ** 2 for b, t in ((0, 0), (0, 2), (1, 2))]
    assert float(term.value) == pytest.approx(0.01 * sum(values) / 3, rel=1e-5)


def test_embedding_gradients_shrink_and_outputs_do_not() -> None:
    found = []
    for shrink in (False, True):
        model = TinyModel()
        if shrink:
            model = build("embedding_gradient_shrink", share=0.1).modify_model(model)
        out = model(torch.arange(12).view(1, 12)).logits
        out.square().mean().backward()
        found.append((out.detach(), model.embed_tokens.weight.grad, model.hidden.weight.grad))
    torch.testing.assert_close(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1] * 0.1, found[1][1], rtol=1e-4, atol=1e-9)
    torch.testing.assert_close(found[0][2], found[1][2])


def test_spec_changes_reach_our_model() -> None:
    spec = ModelSpec(vocab_size=8)
    for name, field, value in (
        ("qk_norm", "qk_norm", True),
        ("embedding_gradient_shrink", "embedding_gradient_scale", 0.1),
    ):
        method = registry().get("stabilizer", name)
        assert getattr(method.modify_spec(method.Config(), spec), field) == value


def bad_loss(factor: float) -> Any:
    """The loss, multiplied on the poisoned sequences."""

    def loss(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> Any:
        poisoned = batch.pop("poisoned")
        result = language_modeling_loss(model, batch)
        return result._replace(total=result.total * (factor if bool(poisoned.any()) else 1.0))

    return loss


class PoisonedSource(TinySource):
    """Marks some sequences as bad."""

    def next(self, size: int) -> dict[str, torch.Tensor]:
        first = self.position
        batch = super().next(size)
        batch["poisoned"] = torch.tensor([first + i in self.bad for i in range(size)])
        return batch


@pytest.mark.parametrize("factor", [1e4, math.nan])
def test_a_bad_batch_is_skipped_and_said(tmp_path: Path, factor: float) -> None:
    source = PoisonedSource(bad={8 * 33})
    rollback = build("spike_rollback", window=10)
    model, facts = run(
        tmp_path,
        source=source,
        loss=bad_loss(factor),
        methods=methods(stabilizers=(rollback,)),
        steps=60,
        checkpoint_every=10,
    )
    (event,) = facts["rollbacks"]
    assert event["spike_step"] == 33
    assert event["restored_step"] == 30
    # Steps 30 to 35 were drawn before the logging step 36 saw the spike.
    assert event["skipped_sequences"] == 6 * 8
    assert event["skipped_from"] == {"position": 240}
    assert event["skipped_to"] == {"position": 288}
    assert facts["steps"] == 60
    assert source.position == (60 + 6) * 8
    assert facts["final_loss"] < 0.8 * facts["first_loss"]
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def test_without_it_the_same_batch_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(DivergedError) as error:
        run(tmp_path, source=PoisonedSource(bad={8 * 33}), loss=bad_loss(math.nan), steps=60)
    assert error.value.step == 33


def test_it_gives_up_after_max_rollbacks(tmp_path: Path) -> None:
    rollback = build("spike_rollback", window=10, max_rollbacks=2)
    with pytest.raises(DivergedError, match="after 2 rollbacks"):
        run(
            tmp_path,
            source=PoisonedSource(bad=set(range(8 * 33, 10_000))),
            loss=bad_loss(math.nan),
            methods=methods(stabilizers=(rollback,)),
            steps=60,
            checkpoint_every=10,
        )


def test_it_needs_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="spike_rollback returns to checkpoints; set it to some steps"):
        run(tmp_path, methods=methods(stabilizers=(build("spike_rollback"),)))
