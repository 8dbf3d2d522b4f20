"""Span corruption and UL2 for any length, density and span: exact invariants."""

from __future__ import annotations

from typing import Any

import numpy as np
from harness_plugins.objective._spans import noise_mask
from harness_plugins.objective.mixture_of_denoisers import EXTREME, REGULAR
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.axes.objective import Example
from harness.registry.known import registry

FIRST = 10_000
"""Id of the first sentinel; tokens are the numbers below the window's length, each once."""


def build(name: str, **options: Any) -> Any:
    method = registry().get("objective", name)
    return method(method.Config(**options))


def example(objective: Any, length: int, seed: int, *, encoder: bool) -> Example:
    return objective.example(  # type: ignore[no-any-return]
        np.arange(length, dtype=np.int64),
        np.random.default_rng(seed),
        encoder=encoder,
        sentinels=np.arange(FIRST, FIRST + objective.num_sentinels()),
    )


def source_and_target(found: Example) -> tuple[list[int], list[int]]:
    """What is read and what is predicted, the first sentinel of an encoder's target included."""
    if found.source_S is not None:
        return found.source_S.tolist(), [*found.inputs_T[:1].tolist(), *found.labels_T.tolist()]
    cut = found.prefix_length
    assert (found.labels_T[: cut - 1] == -100).all()
    return found.inputs_T[:cut].tolist(), found.labels_T[cut - 1 :].tolist()


def spans_of(target: list[int]) -> list[list[int]]:
    """The hidden spans, in order; each begins with its sentinel, and sentinels rise from the first one."""
    spans: list[list[int]] = []
    for token in target:
        if token >= FIRST:
            assert token == FIRST + len(spans), "sentinels stand in rising order"
            spans.append([])
        else:
            spans[-1].append(token)
    assert spans.pop() == [], "a last sentinel ends the target"
    return spans


def restored(source: list[int], spans: list[list[int]]) -> list[int]:
    """The source with each sentinel replaced by its span."""
    assert [token - FIRST for token in source if token >= FIRST] == list(range(len(spans))), "each once"
    return [t for token in source for t in (spans[token - FIRST] if token >= FIRST else [token])]


def counts(length: int, density: float, mean_span: float) -> tuple[int, int]:
    """Hidden tokens and spans of a sequence, by T5's random_spans_noise_mask; every part has a token."""
    num_noise = min(max(round(length * density), 1), length - 1)
    return num_noise, min(max(round(num_noise / mean_span), 1), num_noise, length - num_noise)


steady = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine fails no test."""
lengths = st.integers(5, 600)
densities = st.floats(0.01, 0.99)
mean_spans = st.floats(1, 80)
seeds = st.integers(0, 2**32 - 1)


@steady
@given(lengths, densities, mean_spans, seeds)
def test_a_noise_mask_hides_exactly_the_share_in_exactly_the_spans(
    length: int, density: float, mean_span: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    mask = noise_mask(length, density=density, mean_span=mean_span, max_spans=length, rng=rng)
    starts = mask & ~np.concatenate([[False], mask[:-1]])
    assert (int(mask.sum()), int(starts.sum())) == counts(length, density, mean_span)
    assert len(mask) == length
    assert not mask[0], "the first span is kept"
    assert mask[-1], "the last one is hidden"


@steady
@given(lengths, densities, mean_spans, seeds, st.booleans())
def test_span_corruption_loses_and_repeats_nothing(
    length: int, density: float, mean_span: float, seed: int, encoder: bool
) -> None:
    objective = build("denoising", density=density, mean_span=mean_span, max_spans=length)
    found = example(objective, length, seed, encoder=encoder)
    source, target = source_and_target(found)
    spans = spans_of(target)
    used = len(source) + len(target) - 2 * len(spans) - 1
    assert restored(source, spans) == list(range(used))
    assert (sum(map(len, spans)), len(spans)) == counts(used, density, mean_span)
    assert all(spans), "no span is empty"
    assert len(found.inputs_T) <= length - 1
    if used < length:  # one token more would not fit
        more_noise, more_spans = counts(used + 1, density, mean_span)
        assert (more_noise + more_spans if encoder else used + 1 + 2 * more_spans) + 1 > length


@steady
@given(st.integers(16, 600), seeds, st.booleans())
def test_a_mixture_of_denoisers_is_one_of_its_seven_and_loses_nothing(
    length: int, seed: int, encoder: bool
) -> None:
    objective = build("mixture_of_denoisers")
    modes = {FIRST + 351: REGULAR, FIRST + 352: EXTREME, FIRST + 353: ()}
    found = example(objective, length, seed, encoder=encoder)
    source, target = source_and_target(found)
    assert source[0] in modes, "the mode is announced in front"
    assert not {*source[1:], *target} & set(modes), "and nowhere else"
    if source[0] == FIRST + 353:
        assert source[1:] + [token for token in target if token < FIRST] == list(range(length - 1))
        assert 1 <= len(target) - encoder <= length // 2
        return
    spans = spans_of(target)
    text = restored(source[1:], spans)
    assert text == list(range(len(text)))
    assert len(text) == length - 1 or not encoder
    hidden = (sum(map(len, spans)), len(spans))
    assert hidden in {counts(len(text), density, span) for span, density in modes[source[0]]}
    assert len(found.inputs_T) <= length - 1
