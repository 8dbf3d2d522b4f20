"""Samples of the policy: what is known of them when they are drawn, and with how many passes."""

from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch

from harness.model.artifact import open_model
from harness.stages import _rollouts
from harness.stages._adaptation import adapt, without_dropout
from harness.stages._rollout_loss import forward
from harness.stages.align import reference_of

TEMPERATURE = 0.7


def drawn(
    root: Path, name: str, peft: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[Any, Any, dict[str, Any], int]:
    """Source, reference, a batch of samples, and the passes that measured them."""
    shelf = tiny.Shelf(root / "shelf")
    options = [
        "model=pretrained",
        f"model.path={tiny.pretrained(root / 'hf')}",
        "instruction.num_items=40",
        f"alignment={name}",
        f"peft={peft}",
        "reward=rules",
        "align.batch_size=8",
        "align.max_new_tokens=6",
        f"align.temperature={TEMPERATURE}",
    ]
    work = tiny.work(shelf, "align", shelf.new("out"), options, {})
    method: Any = work.one("alignment").build()
    adapted = adapt(open_model(work, trainable=True), work.one("peft"))
    reference = reference_of(work, adapted)
    source = _rollouts.RolloutSource(work, adapted, method, reference)
    with torch.no_grad():  # away from the start, so that policy and reference differ
        for parameter in adapted.model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape) * 0.02)
    passes = 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal passes
        passes += 1
        return forward(*args, **kwargs)

    monkeypatch.setattr(_rollouts, "forward", counted)
    with without_dropout(adapted.model):
        batch = source.next(8)
    return source, reference, batch, passes


@pytest.mark.parametrize("peft", ["full", "lora"])
@pytest.mark.parametrize(("name", "passes"), [("grpo", 1), ("best_of_n", 1), ("quark", 2), ("ppo", 2)])
def test_what_was_sampled_is_measured_as_it_was_sampled(
    name: str, passes: int, peft: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samples that are learned as they were drawn need no pass of the model that drew them; a value head
    needs one, and so do samples that come again or under another prompt."""
    source, reference, batch, taken = drawn(tmp_path, name, peft, monkeypatch)
    assert taken == passes
    model = source.adapted.model.eval()
    with torch.no_grad():
        policy = forward(model, batch, values=False, temperature=TEMPERATURE)[0].per_token_BT
        with reference() as other:
            start = forward(other, batch, values=False, temperature=TEMPERATURE)[0].per_token_BT
    assert (policy - start).abs().max() > 1e-3
    torch.testing.assert_close(batch["old_BT"], policy, rtol=0, atol=2e-5)
    torch.testing.assert_close(batch["reference_BT"], start, rtol=0, atol=2e-5)
