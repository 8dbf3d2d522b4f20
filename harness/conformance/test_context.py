"""What every context method must do, on our model and on a Hugging Face one."""

from __future__ import annotations

import copy
import functools
import tempfile
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.axes.context import Context
from harness.conformance._compare import close
from harness.ops.extension import rotary_modules, trained_length

AXIS = "context"

LENGTH = 32
"""Trained length of the tiny models."""
VOCAB = 48


@functools.cache
def _models() -> dict[str, nn.Module]:
    from transformers import LlamaConfig, LlamaForCausalLM

    import harness.model
    from harness.compose import compose, publish

    publish()
    size = f"model.max_length={LENGTH}"
    cell = compose([size, "model.dim=32", "model.num_layers=2", "model.num_heads=2", "model.head_dim=16"])
    spec = cell.spec()
    assert spec is not None
    from harness.axes import MODEL_AXES

    choices = {axis: cell.choice(axis) for axis in MODEL_AXES}
    ours = harness.model.build(spec, choices, seed=0)  # type: ignore[arg-type]
    torch.manual_seed(0)
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=LENGTH,
        )
    )
    for model in (ours, theirs):
        # Fresh weights attend to everything alike; sharper ones let positions matter.
        for name, p in model.named_parameters():
            if "q_proj" in name or "k_proj" in name:
                p.data.mul_(12)
    return {"ours": ours.eval(), "theirs": theirs.eval()}


def model_of(kind: str) -> Any:
    """A fresh copy of a tiny model."""
    return copy.deepcopy(_models()[kind])


def ids(length: int, batch: int = 1) -> Tensor:
    """Some tokens."""
    return torch.randint(2, VOCAB, (batch, length), generator=torch.Generator().manual_seed(length))


@torch.no_grad()
def logits(model: Any, input_ids: Tensor, **inputs: Any) -> Tensor:
    """The model's logits."""
    out: Tensor = model(input_ids=input_ids, use_cache=False, **inputs).logits
    return out


both = pytest.mark.parametrize("kind", ["ours", "theirs"])


@both
def test_it_leaves_a_proof_of_its_effect(method: type[Context], kind: str) -> None:
    model = model_of(kind)
    before = [module.inv_freq.clone() for module in rotary_modules(model)]  # type: ignore[operator]
    length = trained_length(model)
    applied = method().apply(model)
    after = [module.inv_freq for module in rotary_modules(applied)]
    moved = any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))  # type: ignore[arg-type]
    hooked = any(
        getattr(module, "context_attend", None) is not None or hasattr(module, "follows")
        for module in applied.modules()
    )
    assert moved or hooked or trained_length(applied) > length, "the model is as it was"


@both
def test_the_config_states_the_longer_context(method: type[Context], kind: str) -> None:
    model = model_of(kind)
    applied: Any = method(method.Config(factor=4.0)).apply(model)
    stated = applied.config.max_position_embeddings
    assert 2 * LENGTH <= stated <= 4 * LENGTH, "tools ask config.max_position_embeddings"


@both
def test_long_sequences_give_finite_logits(method: type[Context], kind: str) -> None:
    model = method().apply(model_of(kind))
    assert bool(logits(model, ids(2 * LENGTH, batch=2)).isfinite().all()), (
        "logits beyond the trained length are not finite"
    )


@both
def test_future_tokens_do_not_leak(method: type[Context], kind: str) -> None:
    model = method().apply(model_of(kind))
    left = ids(2 * LENGTH)
    right = left.clone()
    right[:, LENGTH:] = (right[:, LENGTH:] + 1) % VOCAB
    before, after = logits(model, left)[:, :LENGTH], logits(model, right)[:, :LENGTH]
    close(before, after, "a later token changes the logits before it", rtol=1e-4, atol=1e-5)


@both
def test_padding_on_the_left_changes_nothing(method: type[Context], kind: str) -> None:
    model = method().apply(model_of(kind))
    row = ids(LENGTH)
    padded = torch.cat([torch.zeros(1, 5, dtype=torch.long), row], dim=1)
    mask = torch.cat([torch.zeros(1, 5, dtype=torch.long), torch.ones_like(row)], dim=1)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    found = logits(model, padded, attention_mask=mask, position_ids=positions)[:, 5:]
    close(found, logits(model, row), "padding changes the logits of real tokens", rtol=1e-3, atol=1e-4)


@both
def test_decoding_with_a_cache_equals_reading_at_once(method: type[Context], kind: str) -> None:
    model = method().apply(model_of(kind))
    row = ids(LENGTH)
    with torch.no_grad():
        first = model(input_ids=row[:, :-3], use_cache=True)
        steps, cache = [first.logits], first.past_key_values
        for i in range(3, 0, -1):
            column = row[:, -i : row.shape[1] - i + 1]
            out = model(input_ids=column, past_key_values=cache, use_cache=True)
            steps, cache = [*steps, out.logits], out.past_key_values
    why = "decoding with a cache gives other logits than one pass over all tokens"
    close(torch.cat(steps, dim=1), logits(model, row), why, rtol=1e-3, atol=1e-4)


@both
def test_a_copy_behaves_alike_and_stands_alone(method: type[Context], kind: str) -> None:
    model = method().apply(model_of(kind))
    row = ids(2 * LENGTH)
    copied = copy.deepcopy(model)
    expected = logits(model, row)
    close(logits(copied, row), expected, "a copy of the model computes something else")
    for module in rotary_modules(copied):
        module.inv_freq.zero_()  # type: ignore[operator]
    why = "a copy shares its frequencies with the model: bind no method of the original"
    close(logits(model, row), expected, why)


@both
def test_it_is_the_same_after_a_reload(method: type[Context], kind: str) -> None:
    model = method().apply(model_of(kind))
    row = ids(2 * LENGTH)
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)  # type: ignore[operator]
        loaded = AutoModelForCausalLM.from_pretrained(folder).eval()
    reloaded = method().apply(loaded)
    close(
        logits(reloaded, row),
        logits(model, row),
        "saved, loaded and applied again, it differs",
        rtol=1e-4,
        atol=1e-5,
    )
    kept = [one.config.max_position_embeddings for one in (reloaded, model)]  # type: ignore[union-attr]
    assert kept[0] == kept[1], "the stated max_position_embeddings is lost on a reload: use set_length"
