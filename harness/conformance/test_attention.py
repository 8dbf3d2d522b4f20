"""What every attention must do."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from harness.axes.attention import Attention
from harness.conformance._model_suite import *  # noqa: F403
from harness.conformance._models import SPEC, LayeredCache, kept_values, model_of, tokens
from harness.errors import HarnessError
from harness.method import Method
from harness.model.views import view_of
from harness.ops.paged_cache import PagedCache
from harness.ops.state_cache import StateCache

AXIS = "attention"


def _layer(method: type[Method]) -> Attention:
    attention = model_of(method).model.layers[0].self_attn
    assert isinstance(attention, Attention)
    return attention


def test_keys_hold_all_that_the_mask_allows(method: type[Method]) -> None:
    """`keys` may name too many keys, never too few, for any block of queries."""
    attention, length = _layer(method), 40
    q, k = torch.arange(length)[:, None], torch.arange(length)[None]
    zero = torch.zeros(1, 1, dtype=torch.long)
    for head in range(SPEC.num_heads):
        allowed = torch.as_tensor(attention.mask(zero, zero + head, q, k)).expand(length, length) & (k <= q)
        for start in range(0, length, 7):
            end = min(start + 7, length)
            named = torch.zeros(length, dtype=torch.bool)
            named[attention.keys(start, end, length)] = True
            missed = (allowed[start:end] & ~named).nonzero()
            assert not len(missed), f"queries {start}..{end} read keys that `keys` leaves out: {missed[:3]}"


def test_a_token_reads_itself(method: type[Method]) -> None:
    """No row of the softmax is empty: position 0 sees itself."""
    at = torch.arange(20)[None, None, :, None]
    zero = torch.zeros_like(at)
    assert torch.as_tensor(_layer(method).mask(zero, zero, at, at)).all(), (
        "a token may not read itself: its row of the softmax may be empty; widen `mask` by one"
    )


@torch.no_grad()
def test_the_cache_holds_the_stated_number_of_heads(method: type[Method]) -> None:
    """The cache's tensors have `num_kv_heads` heads at most, which divide the query heads."""
    model = model_of(method)
    attention, cache = _layer(method), LayeredCache(model)
    model(tokens(), past_key_values=cache)
    heads = attention.num_kv_heads(attention.config, SPEC.num_heads)
    assert SPEC.num_heads % heads == 0, (
        f"num_kv_heads={heads} does not divide the {SPEC.num_heads} query heads"
    )
    layer = cache.layers[0]
    if isinstance(layer, StateCache):
        assert layer.state is not None, "nothing was stored in the cache"
        assert layer.state.shape[:2] == (2, SPEC.num_heads), "the state has a row for each sequence and head"
        return
    if isinstance(layer, PagedCache):
        assert layer.keys is not None, "nothing was stored in the cache"
        assert layer.keys.shape[0] <= heads, f"the cache holds more heads than num_kv_heads={heads}"
        return
    assert layer.keys.shape[1] <= heads, f"the cache holds more heads than num_kv_heads={heads}"


@pytest.mark.parametrize(("field", "value"), [("attention_cap", 0.3), ("attention_scale", 0.7)])
@torch.no_grad()
def test_scores_are_scaled_and_bounded_as_the_shape_says(
    method: type[Method], field: str, value: float
) -> None:
    """A field of the shape about scores is read, however many tokens there are, or refused, or `unread`."""
    assert issubclass(method, Attention), "it is no attention"
    changed: dict[str, Any] = {field: value}
    for length in (5, 40):
        ids = tokens(2, length)
        plain = model_of(method, max_length=40)(ids)
        try:
            stated = model_of(method, max_length=40, **changed)(ids)
        except HarnessError:
            return
        assert torch.equal(plain, stated) == (field in method.unread), (
            f"model.{field} changes nothing: read self.spec.{field} (self.scale), or name it in `unread`"
        )


def test_projections_have_uniform_names(method: type[Method]) -> None:
    """PEFT, quantizers and importers find the same layers in every variant."""
    modules = dict(_layer(method).named_modules())
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        assert isinstance(modules.get(name), torch.nn.Linear), f"{name} must be a Linear layer"


@pytest.mark.parametrize("length", [16, 200])
def test_a_layer_keeps_no_more_than_the_plan_counts(method: type[Method], length: int) -> None:
    """Memory is bounded by the projections of any attention and `kept_values`."""
    model = model_of(method, dtype=torch.float32, max_length=length).train()
    layer, spec = model.model.layers[0].self_attn, model.spec
    assert isinstance(layer, Attention)
    x_BTD = torch.randn(2, length, spec.dim, requires_grad=True)
    view = view_of(x_BTD, architecture=model.model.architecture, num_layers=spec.num_layers)
    plain = spec.dim + 6 * spec.num_heads * spec.head_dim
    stated = plain + layer.kept_values(layer.config, spec, length)
    found = kept_values(layer, x_BTD, view, position=model.model.position)
    assert found < 1.2 * stated, (
        f"a token keeps {found:.0f} values; the plan counts {stated:.0f}: kept_values"
    )


@pytest.mark.parametrize("read", ["whole", "padded", "documents", "cached"])
@pytest.mark.parametrize(
    "wide",
    ["v_proj", *(pytest.param(name, marks=pytest.mark.slow(always=True)) for name in ("q_proj", "k_proj"))],
)
def test_a_projection_may_give_single_precision_where_others_give_half(
    method: type[Method], wide: str, read: str
) -> None:
    """Under autocast, as where an adapter computes in single precision."""
    model, ids = model_of(method, dtype=torch.float32), tokens()
    given: dict[str, Any] = {}
    if read == "padded":
        given["attention_mask"] = torch.ones_like(ids)
        given["attention_mask"][0, :5] = 0
    if read == "documents":
        given["document_ids"] = (torch.arange(ids.shape[1])[None] // 7).expand_as(ids)

    def logits() -> torch.Tensor:
        if read != "cached":
            return model(ids, **given)  # type: ignore[no-any-return]
        kept = LayeredCache(model)
        return torch.cat(
            [model(part, past_key_values=kept) for part in (ids[:, :9], ids[:, 9:10], ids[:, 10:])], 1
        )

    exact = logits()
    for name, module in model.named_modules():
        if name.endswith(f"self_attn.{wide}"):
            module.register_forward_hook(lambda module, inputs, output: output.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = logits()
        found.float().square().mean().backward()
    seen = given.get("attention_mask", torch.ones_like(ids)).bool()
    error = (found.float() - exact)[seen].square().mean().sqrt() / exact[seen].std()
    assert error < 0.1, "it computes something else where its projections differ in their format"
