"""Facts about top-k attention that no conformance suite can know."""

import pytest
import torch

from harness import ConfigError
from harness.compose import compose
from harness.model import build


def logits(*overrides: str) -> torch.Tensor:
    cell = compose([*overrides, "model.dim=32", "model.head_dim=8", "model.ffn_dim=48", "model.num_layers=2"])
    axes = ("architecture", "attention", "position", "norm", "norm_position", "feed_forward")
    choices = {axis: cell.choice(axis) for axis in axes}
    spec = cell.spec()
    assert spec is not None
    model = build(spec, choices, seed=0).double()  # type: ignore[arg-type]
    tokens = torch.arange(24).view(2, 12)
    return model(input_ids=tokens).logits


def test_k_of_all_keys_is_full_attention() -> None:
    every = logits("attention=top_k", "attention.k=12")
    torch.testing.assert_close(every, logits("attention=full"), rtol=1e-10, atol=1e-10)


def test_few_keys_change_the_scores() -> None:
    assert not torch.allclose(logits("attention=top_k", "attention.k=2"), logits("attention=full"))


def test_it_refuses_no_keys() -> None:
    with pytest.raises(ConfigError, match=r"attention\.k=0 must be at least 1"):
        logits("attention=top_k", "attention.k=0")
