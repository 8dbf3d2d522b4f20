"""Planted bugs: the objective suite must fail on each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from told import told

from harness.axes.objective import Example, Objective
from harness.conformance import test_objective as suite


class Base(Objective):
    """Next-token prediction, to be broken."""

    name = "base"

    def example(
        self, window_T: np.ndarray, rng: np.random.Generator, *, encoder: bool, sentinels: np.ndarray
    ) -> Example:
        source = window_T[:9] if encoder else None
        return Example(inputs_T=window_T[:-1], labels_T=window_T[1:], source_S=source)


class Unshifted(Base):
    """Predicts what it reads."""

    name = "unshifted"

    def example(self, window_T: np.ndarray, rng: Any, *, encoder: bool, sentinels: np.ndarray) -> Example:
        source = window_T[:9] if encoder else None
        return Example(inputs_T=window_T[:-1], labels_T=window_T[:-1], source_S=source)


class Copying(Base):
    """Predicts inside a bidirectional prefix."""

    name = "copying"

    def example(self, window_T: np.ndarray, rng: Any, *, encoder: bool, sentinels: np.ndarray) -> Example:
        return Example(inputs_T=window_T[:-1], labels_T=window_T[1:], prefix_length=20)


class Losing(Base):
    """Drops tokens from the middle."""

    name = "losing"

    def example(self, window_T: np.ndarray, rng: Any, *, encoder: bool, sentinels: np.ndarray) -> Example:
        window_T = np.concatenate([window_T[:20], window_T[25:]])
        source = window_T[:9] if encoder else None
        return Example(inputs_T=window_T[:-1], labels_T=window_T[1:], source_S=source)


class Restless(Base):
    """Uses a generator of its own."""

    name = "restless"

    def example(self, window_T: np.ndarray, rng: Any, *, encoder: bool, sentinels: np.ndarray) -> Example:
        start = int(np.random.default_rng().integers(1, 30))
        source = window_T[:start] if encoder else None
        return Example(inputs_T=window_T[start:-1], labels_T=window_T[start + 1 :], source_S=source)


class Mute(Base):
    """Predicts nothing."""

    name = "mute"

    def example(self, window_T: np.ndarray, rng: Any, *, encoder: bool, sentinels: np.ndarray) -> Example:
        source = window_T[:9] if encoder else None
        return Example(inputs_T=window_T[:-1], labels_T=np.full(len(window_T) - 1, -100), source_S=source)


class Scribbling(Base):
    """Writes into the memory-mapped window."""

    name = "scribbling"

    def example(self, window_T: np.ndarray, rng: Any, *, encoder: bool, sentinels: np.ndarray) -> Example:
        window_T[3] = 0
        return super().example(window_T, rng, encoder=encoder, sentinels=sentinels)


class Inventing(Base):
    """Uses an id outside the vocabulary."""

    name = "inventing"

    def example(self, window_T: np.ndarray, rng: Any, *, encoder: bool, sentinels: np.ndarray) -> Example:
        window_T = np.append(window_T[:-1], 10_000)
        return super().example(window_T, rng, encoder=encoder, sentinels=sentinels)


@pytest.mark.parametrize(
    ("broken", "test", "arguments"),
    [
        (Unshifted, suite.test_labels_are_the_next_input, {"encoder": False}),
        (Copying, suite.test_nothing_in_the_prefix_is_predicted, {}),
        (Copying, suite.test_inputs_and_labels_match_in_length_and_fit_the_window, {"encoder": True}),
        (Losing, suite.test_every_token_is_read_or_predicted, {"encoder": False}),
        (Restless, suite.test_equal_generators_make_equal_examples, {"encoder": False}),
        (Mute, suite.test_something_is_predicted, {"encoder": True}),
        (Scribbling, suite.test_the_window_is_not_written_to, {"encoder": False}),
        (Inventing, suite.test_ids_are_tokens_of_the_window_or_sentinels, {"encoder": False}),
    ],
)
def test_the_suite_finds(
    broken: type[Objective], test: Callable[..., None], arguments: dict[str, Any]
) -> None:
    with told():
        test(broken, **arguments)
