"""What every method that shapes a transformer must do; the suites of the model axes import these tests."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.conformance._compare import close
from harness.conformance._models import LayeredCache, inputs_for, model_of, tokens
from harness.method import Method
from harness.ops.packed_linear import linear_layers


def _close(left: Tensor, right: Tensor, why: str) -> None:
    close(left, right, why, rtol=1e-9, atol=1e-9)


def test_future_tokens_do_not_leak(method: type[Method]) -> None:
    """Changing token 10 changes nothing before it (nor a prefix that ends earlier)."""
    model, ids = model_of(method), tokens()
    changed = ids.clone()
    changed[:, 10] = (changed[:, 10] + 1) % 32
    with torch.no_grad():
        before, after = model(ids, **inputs_for(model)), model(changed, **inputs_for(model))
    _close(
        before[:, :10],
        after[:, :10],
        "a later token changes the logits before it: a token reads what follows it",
    )
    assert not torch.equal(before[:, 10], after[:, 10]), (
        "a token does not read itself: its logits stay when it changes"
    )


@torch.no_grad()
def test_cached_decoding_equals_the_full_forward(method: type[Method]) -> None:
    """A prompt of 6, then chunks of 3 and 1, give the logits of one pass."""
    model, ids = model_of(method), tokens()
    inputs, cache = inputs_for(model), LayeredCache(model)
    whole = model(ids, **inputs)
    start = 0
    for end in (6, 9, 10, 11, 16):
        part = model(ids[:, start:end], past_key_values=cache, **inputs)
        _close(
            part,
            whole[:, start:end],
            "decoding with a cache gives other logits than one pass over all tokens",
        )
        start = end


def test_gradients_reach_every_parameter(method: type[Method]) -> None:
    """Every parameter gets a gradient that is finite and, somewhere, not zero."""
    model, ids = model_of(method), tokens(8, 16)
    model.train()
    model(ids, **inputs_for(model, 8)).logsumexp(-1).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{name} has no gradient"
        assert parameter.grad.isfinite().all(), f"the gradient of {name} is not finite"
        # A key's bias shifts all scores of a query alike, so softmax attention may give it none.
        if not name.endswith("k_proj.bias"):
            assert parameter.grad.abs().max() > 0, f"the gradient of {name} is zero everywhere"


@torch.no_grad()
def test_documents_do_not_see_each_other(method: type[Method]) -> None:
    """Two documents packed into a row give the logits of each alone."""
    model, ids = model_of(method), tokens()
    inputs = inputs_for(model)
    inputs.pop("prefix_length", None)
    documents = torch.tensor([[0] * 5 + [1] * 11] * 2)
    packed = model(ids, document_ids=documents, **inputs)
    apart = "a document's logits depend on its neighbours in the packed row: read view.document_BS"
    _close(packed[:, :5], model(ids[:, :5], **inputs), apart)
    _close(packed[:, 5:], model(ids[:, 5:], **inputs), apart)


@torch.no_grad()
def test_padding_changes_nothing(method: type[Method]) -> None:
    """Rows padded on the left or on the right give the logits of the row alone."""
    model, ids = model_of(method), tokens()
    alone = model(ids, **inputs_for(model))
    zeros = torch.zeros(2, 3, dtype=torch.long)
    real = torch.ones_like(ids)
    left = model(torch.cat((zeros, ids), 1), attention_mask=torch.cat((zeros, real), 1), **inputs_for(model))
    _close(left[:, 3:], alone, "padding on the left changes the logits of real tokens")
    right = model(torch.cat((ids, zeros), 1), attention_mask=torch.cat((real, zeros), 1), **inputs_for(model))
    _close(right[:, :16], alone, "padding on the right changes the logits of real tokens")


@torch.no_grad()
def test_rows_of_a_batch_do_not_see_each_other(method: type[Method]) -> None:
    """A row's logits do not depend on what else is in the batch."""
    model, ids = model_of(method), tokens()
    inputs = inputs_for(model)
    both = model(ids, **inputs)
    first = {name: value[:1] for name, value in inputs.items()}
    _close(both[:1], model(ids[:1], **first), "a row's logits depend on the other rows of its batch")


@torch.no_grad()
def test_every_linear_layer_is_called(method: type[Method]) -> None:
    """Adapters act on a layer, and quantizers see what it multiplies, where it is called."""
    model = model_of(method)
    called: set[str] = set()
    for name, layer in linear_layers(model).items():
        layer.register_forward_pre_hook(lambda *_, name=name: called.add(name))
    model(tokens(8, 32), **inputs_for(model, 8))
    left = sorted(set(linear_layers(model)) - called)
    assert not left, f"{left[:3]} are never called: call the layer, do not read its weight"


@torch.no_grad()
def test_two_passes_are_equal(method: type[Method]) -> None:
    """The same weights and tokens give the same bits."""
    model, ids = model_of(method), tokens()
    first = model(ids, **inputs_for(model))
    assert torch.equal(first, model(ids, **inputs_for(model))), (
        "one model gives other logits at a second pass: draw nothing in eval mode"
    )
    assert torch.equal(first, model_of(method)(ids, **inputs_for(model))), (
        "building twice from one seed gives other weights: draw parameters from torch's global stream alone"
    )


@torch.no_grad()
def test_state_dict_round_trip(method: type[Method]) -> None:
    """Weights saved and loaded into a model of other weights give the same logits."""
    model, ids = model_of(method), tokens()
    other = model_of(method)
    for parameter in other.parameters():
        parameter.add_(1.0)
    other.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(model(ids, **inputs_for(model)), other(ids, **inputs_for(model))), (
        "a loaded model computes something else: register what it computes with as parameters or buffers"
    )


@torch.no_grad()
def test_float64_stays_float64(method: type[Method]) -> None:
    """Nothing inside falls back to single precision: a step of 1e-8 moves the logits half as far as two."""
    model, ids = model_of(method), tokens()
    exact = model(ids, **inputs_for(model))
    assert exact.dtype == torch.float64, (
        "the model computes in float64 and this returns another dtype: cast to the input's, not to float32"
    )
    assert exact.shape == (2, 16, 32), (
        f"logits of shape {tuple(exact.shape)}, where 2 sequences, 16 tokens and 32 words went in"
    )
    step = 1e-8 * torch.randn(32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    model.model.embed_tokens.weight += step
    once = model(ids, **inputs_for(model)) - exact
    model.model.embed_tokens.weight += step
    twice = model(ids, **inputs_for(model)) - exact
    assert (twice - 2 * once).norm() < 1e-3 * once.norm(), "a step of 1e-8 is lost in rounding"
    single = model_of(method, dtype=torch.float32)(ids, **inputs_for(model))
    assert single.dtype == torch.float32, "a float32 model returns another dtype: cast to the input's"
    error = (single.double() - exact).abs().max() / exact.abs().max()
    assert error < 1e-4, f"float32 is off by {error:.1e}"


@torch.no_grad()
def test_bfloat16_error_is_at_most_twice_the_reference(method: type[Method]) -> None:
    """Low precision costs at most twice what it costs the default model of the same weights' scale."""
    from harness.conformance._models import default_choice

    def error(kind: type[Method]) -> float:
        ids = tokens(4, 16)
        exact = model_of(kind, init_std=0.1)
        low = model_of(kind, init_std=0.1, dtype=torch.bfloat16)
        inputs = inputs_for(exact, 4)
        truth = exact(ids, **inputs)
        return float((low(ids, **inputs).double() - truth).norm() / truth.norm())

    reference = error(default_choice(method.axis).method)
    assert error(method) <= 2 * reference, f"{error(method):.1e} against {reference:.1e}"
