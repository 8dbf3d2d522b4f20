"""What methods of two model axes must do together: what can be built computes the same however it is run.

A pair that cannot work is refused when the model is built, saying which option to change. Fours are drawn,
by a seed that changes by the week (`HARNESS_PAIRS_SEED` fixes it): two attentions, each with a position
scheme of its own, layer after layer in turn.
"""

from __future__ import annotations

import os
import random
import time
from functools import cache
from itertools import combinations, pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.axes import MODEL_AXES
from harness.axes.attention import Attention
from harness.axes.position import Position
from harness.conformance._asked import is_asked
from harness.conformance._compare import close
from harness.conformance._models import LayeredCache, inputs_for, pair_of, tokens
from harness.errors import HarnessError
from harness.method import Choice, Method
from harness.model.choices import plain_node
from harness.registry.known import registry

Pair = tuple[type[Method], ...]
T = 12
"""Tokens of a sequence here."""
FOURS = 8
"""Fours that are drawn."""


def pairs() -> list[Any]:
    """Every pair of methods of two model axes; those that share no state run with the slow tests.

    Attention, position and architecture meet in masks, caches and positions; each method of another axis
    meets one method of these, in turn, so that every method is in a pair of the fast ones.
    """
    found = []
    for first, second in combinations(MODEL_AXES, 2):
        close = {first, second} <= {"attention", "position", "architecture"}
        for i, one in enumerate(registry().methods(first).values()):
            for j, two in enumerate(registry().methods(second).values()):
                fast = close or (i + j) % 4 == 0
                marks = () if fast else (pytest.mark.slow,)
                name = f"{first}={one.name}-{second}={two.name}"
                found.append(pytest.param((one, two), id=name, marks=marks))
    return found


def fours() -> list[Any]:
    """Some of two attentions and a position scheme of each; the second's adds nothing to the embeddings."""
    draw = random.Random(int(os.environ.get("HARNESS_PAIRS_SEED", time.time() // (7 * 86400))))
    attentions, positions = (list(registry().methods(axis).values()) for axis in ("attention", "position"))
    of_layers = [method for method in positions if method.embed is Position.embed]  # type: ignore[attr-defined]
    found = []
    for _ in range(FOURS):
        first, second = draw.sample(attentions, 2)
        found.append((first, draw.choice(positions), second, draw.choice(of_layers)))
    return [pytest.param(some, id="-".join(method.name for method in some)) for some in found]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize over what installed methods make, or over what one of a distribution is in."""
    (name,) = {"pair", "four"} & set(metafunc.fixturenames)
    chosen = [
        some
        for some in (pairs() if name == "pair" else fours())
        if any(is_asked(metafunc.config, method) for method in some.values[0])
    ]
    metafunc.parametrize(name, chosen or [pytest.param(None, marks=pytest.mark.nothing)])


def model_or_skip(pair: Pair, **options: Any) -> Any:
    """The model of some methods; a refusal ends the test, since it says what would work."""
    try:
        return pair_of(pair, **options)
    except HarnessError as error:
        refusal = str(error)
    assert any(way in refusal for way in ("use ", "set ", "make ")), f"says no way out: {refusal}"
    return pytest.skip(f"refused: {refusal}")


@cache
def _tokens() -> Tensor:
    return tokens(2, T)


def _close(left: Tensor, right: Tensor, why: str) -> None:
    close(left, right, f"{why} changes the logits of this pair", rtol=1e-8, atol=1e-8)


@torch.no_grad()
def test_a_pair_computes_the_same_however_it_is_run(pair: Pair) -> None:
    _computes_the_same(model_or_skip(pair))


def _computes_the_same(model: Any) -> None:
    """Cached, padded on either side, packed, at positions of one's own: the logits of one plain pass."""
    ids, inputs = _tokens(), inputs_for(model)
    whole = model(ids, **inputs)
    assert whole.isfinite().all(), "logits are not finite"
    for check in (_cached, _padded_left, _padded_right, _packed, _at_own_positions):
        check(model, ids, inputs, whole)


@torch.no_grad()
def test_layers_in_turn_compute_the_same_however_they_are_run(
    four: tuple[type[Attention], type[Method], type[Attention], type[Method]],
) -> None:
    """Likewise where every other layer has another attention, with a state, a window or keys of its own, and
    other positions.
    """
    first, position, second, other = four
    of_layer = {"attention": (second, second.small()), "position": (other, other.Config())}
    nodes = {
        axis: plain_node(Choice(axis=axis, method=method, config=config))
        for axis, (method, config) in of_layer.items()
    }
    _computes_the_same(model_or_skip((first, position), num_layers=3, layer_pattern=[{}, nodes]))


def _cached(model: Any, ids: Tensor, inputs: dict[str, Tensor], whole: Tensor) -> None:
    kept, start = LayeredCache(model), 0
    for end in (6, 8, 9, T):
        _close(
            model(ids[:, start:end], past_key_values=kept, **inputs),
            whole[:, start:end],
            "decoding with a cache",
        )
        start = end


def _padded_left(model: Any, ids: Tensor, inputs: dict[str, Tensor], whole: Tensor) -> None:
    """One row is padded, in one pass and cached."""
    short = model(ids[:1, 3:], **{name: value[:1] for name, value in inputs.items()})
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    at_once = model(ids, attention_mask=mask, **inputs)
    _close(at_once[:1, 3:], short, "padding on the left")
    _close(at_once[1:], whole[1:], "padding on the left")
    kept, start = LayeredCache(model), 0
    for end in (9, 10, T):
        part = model(ids[:, start:end], attention_mask=mask[:, :end], past_key_values=kept, **inputs)
        seen = max(start, 3)
        _close(part[0, seen - start :], short[0, seen - 3 : end - 3], "padding on the left")
        _close(part[1], whole[1, start:end], "padding on the left")
        start = end


def _padded_right(model: Any, ids: Tensor, inputs: dict[str, Tensor], whole: Tensor) -> None:
    """A row that ends early, and goes on after its padding: the cache keeps a hole."""
    mask = torch.ones_like(ids)
    mask[0, 7:9] = 0
    row = {name: value[:1] for name, value in inputs.items()}
    _close(
        model(ids[:, :9], attention_mask=mask[:, :9], **inputs)[0, :7], whole[0, :7], "padding on the right"
    )
    kept = LayeredCache(model)
    model(ids[:, :9], attention_mask=mask[:, :9], past_key_values=kept, **inputs)
    after = model(ids[:, 9:], attention_mask=mask, past_key_values=kept, **inputs)
    joined = torch.cat((ids[:1, :7], ids[:1, 9:]), dim=1)
    _close(after[:1], model(joined, **row)[:, 7:], "padding on the right")


def _packed(model: Any, ids: Tensor, inputs: dict[str, Tensor], whole: Tensor) -> None:
    """Documents of each row cut elsewhere equal each alone; the source of an encoder is shared."""
    free = {name: value for name, value in inputs.items() if name != "prefix_length"}
    documents = torch.tensor([[4] * 5 + [7] * 1 + [4] * (T - 6), [0] * 8 + [1] * (T - 8)])
    packed = model(ids, document_ids=documents, **free)
    for row, cuts in enumerate(((0, 5, 6, T), (0, 8, T))):
        own = {name: value[row : row + 1] for name, value in free.items()}
        for start, end in pairwise(cuts):
            _close(
                packed[row : row + 1, start:end],
                model(ids[row : row + 1, start:end], **own),
                "a neighbour in the packed row",
            )


def _at_own_positions(model: Any, ids: Tensor, inputs: dict[str, Tensor], whole: Tensor) -> None:
    """Positions 7, 8, ... with a cache give what they give at once; distances alone count where rotary."""
    at = torch.arange(7, 7 + T).expand(2, -1)
    shifted = model(ids, position_ids=at, **inputs)
    if model.model.position.name not in ("learned", "sinusoidal"):
        _close(shifted, whole, "giving positions that only shift")
    for told in (True, False):  # a call that gives none counts on
        kept, start = LayeredCache(model), 0
        for end in (6, 8, T):
            given = {"position_ids": at[:, start:end]} if told or start == 0 else {}
            part = model(ids[:, start:end], past_key_values=kept, **given, **inputs)
            _close(part, shifted[:, start:end], "giving positions that only shift")
            start = end


@torch.no_grad()
def test_a_pair_generates_what_repeated_full_passes_choose(pair: Pair) -> None:
    """Greedy tokens of a left-padded batch, with beams of one sequence too."""
    from harness.conformance._models import hugging_face

    model = hugging_face(model_or_skip(pair, dtype=torch.float32))
    ids = tokens(2, 7, seed=3).clamp_min(1)
    mask = torch.ones_like(ids)
    mask[0, :2] = 0
    options: dict[str, Any] = {
        "max_new_tokens": 4,
        "do_sample": False,
        "pad_token_id": 0,
        "eos_token_id": None,
    }
    found = model.generate(ids, attention_mask=mask, **options)
    again = model.generate(ids, attention_mask=mask, **options, use_cache=False)
    assert torch.equal(found, again), "generation with a cache and without one chooses other tokens"
    for row, start in ((0, 2), (1, 0)):
        alone = model.generate(
            ids[row : row + 1, start:], attention_mask=mask[row : row + 1, start:], **options
        )
        assert torch.equal(found[row, 7:], alone[0, 7 - start :]), (
            "a row is continued otherwise alone than in its batch"
        )
