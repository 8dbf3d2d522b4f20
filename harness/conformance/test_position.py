"""What every position scheme must do."""

from __future__ import annotations

import pytest
import torch

from harness.axes.position import Position
from harness.conformance._compare import close
from harness.conformance._model_suite import *  # noqa: F403
from harness.conformance._models import SPEC, kept_values, model_of, tokens
from harness.method import Method
from harness.model.views import view_of

AXIS = "position"


@torch.no_grad()
def test_explicit_positions_equal_the_default(method: type[Method]) -> None:
    """`position_ids` 0..T-1 change nothing."""
    model, ids = model_of(method), tokens()
    assert torch.equal(model(ids), model(ids, position_ids=torch.arange(16)[None].expand(2, -1))), (
        "positions 0..T-1 given by hand change the logits"
    )


def test_buffers_can_be_computed_anew(method: type[Method]) -> None:
    """After a load through the meta device, `reset_buffers` restores what no checkpoint holds."""
    position = method(method.Config(), SPEC)  # type: ignore[call-arg]
    assert isinstance(position, Position)
    before = {name: value.clone() for name, value in position.named_buffers()}
    for value in position.buffers():
        value.zero_()
    position.reset_buffers()
    persistent = set(position.state_dict())
    for name, value in position.named_buffers():
        assert name in persistent or torch.equal(value, before[name]), f"{name} is not restored"


def test_the_bias_is_what_it_says(method: type[Method]) -> None:
    """`bias` broadcasts to one number for each head, query and key where `has_bias`."""
    position = method(method.Config(), SPEC)  # type: ignore[call-arg]
    assert isinstance(position, Position)
    if not position.has_bias():
        return
    h = torch.arange(SPEC.num_heads)[None, :, None, None]
    q, k = torch.arange(6)[None, None, :, None], torch.arange(9)[None, None, None, :]
    whole = position.bias(h, q, k).expand(1, SPEC.num_heads, 6, 9)
    one = position.bias(h[:, 2:3], q[:, :, 4:5], k[..., 3:4])
    why = "bias(h, q, k) of one pair is not what it is among others: broadcast over all three"
    close(whole[:, 2, 4, 3], one.reshape(1), why)


@pytest.mark.parametrize("length", [16, 200])
def test_a_layer_keeps_no_more_than_the_plan_counts(method: type[Method], length: int) -> None:
    """Memory is bounded by the projections of attention and `kept_values`."""
    model = model_of(method, dtype=torch.float32, max_length=length).train()
    position, spec, layer = model.model.position, model.spec, model.model.layers[0].self_attn
    assert isinstance(layer, torch.nn.Module)
    x_BTD = torch.randn(2, length, spec.dim, requires_grad=True)
    view = view_of(x_BTD, architecture=model.model.architecture, num_layers=spec.num_layers)
    plain = spec.dim + 6 * spec.num_heads * spec.head_dim
    stated = plain + position.kept_values(position.config, spec, length)
    found = kept_values(layer, x_BTD, view, position=position)
    assert found < 1.2 * stated, (
        f"a token keeps {found:.0f} values; the plan counts {stated:.0f}: kept_values"
    )
