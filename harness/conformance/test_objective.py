"""What every objective must do."""

from __future__ import annotations

import numpy as np
import pytest

from harness.axes.objective import Example, Objective

AXIS = "objective"

VOCAB = 500


def made(
    method: type[Objective], *, seed: int = 0, length: int = 65, encoder: bool = False
) -> tuple[np.ndarray, Example]:
    """A window of distinct tokens and its example."""
    objective = method()
    window_T = np.random.default_rng(seed).permutation(VOCAB)[:length].astype(np.int64)
    sentinels = np.arange(VOCAB, VOCAB + objective.num_sentinels())
    example = objective.example(
        window_T.copy(), np.random.default_rng(seed), encoder=encoder, sentinels=sentinels
    )
    return window_T, example


both = pytest.mark.parametrize("encoder", [False, True])


@both
def test_inputs_and_labels_match_in_length_and_fit_the_window(method: type[Objective], encoder: bool) -> None:
    for seed in range(20):
        window_T, example = made(method, seed=seed, encoder=encoder)
        assert example.inputs_T.shape == example.labels_T.shape, (
            "inputs_T and labels_T differ in length: one label a position"
        )
        assert example.inputs_T.dtype == example.labels_T.dtype == np.int64, (
            "inputs_T and labels_T must be int64"
        )
        assert 1 <= len(example.inputs_T) <= len(window_T), "the example does not fit the window"
        assert (example.source_S is not None) == encoder, "source_S is given for an encoder, and only for one"


@both
def test_ids_are_tokens_of_the_window_or_sentinels(method: type[Objective], encoder: bool) -> None:
    for seed in range(20):
        window_T, example = made(method, seed=seed, encoder=encoder)
        known = {*window_T.tolist(), *range(VOCAB, VOCAB + method().num_sentinels())}
        assert set(example.inputs_T.tolist()) <= known, (
            "inputs_T holds ids that are neither of the window nor sentinels: count them in num_sentinels"
        )
        assert set(example.labels_T.tolist()) <= known | {-100}, (
            "labels_T holds ids that are neither of the window, sentinels nor -100"
        )
        assert example.source_S is None or set(example.source_S.tolist()) <= known, (
            "source_S holds ids that are neither of the window nor sentinels"
        )


@both
def test_something_is_predicted(method: type[Objective], encoder: bool) -> None:
    for seed in range(20):
        _, example = made(method, seed=seed, encoder=encoder)
        assert (example.labels_T != -100).any(), "all labels are -100: nothing is learned from this window"


@both
def test_labels_are_the_next_input(method: type[Objective], encoder: bool) -> None:
    """Teacher forcing: what a position predicts is what the next position reads."""
    for seed in range(20):
        _, example = made(method, seed=seed, encoder=encoder)
        learned = example.labels_T[:-1] != -100
        assert (example.labels_T[:-1] == example.inputs_T[1:])[learned].all(), "labels are already shifted"


def test_nothing_in_the_prefix_is_predicted(method: type[Objective]) -> None:
    """A prefix is read in both directions: predicting inside it would be copying."""
    for seed in range(20):
        _, example = made(method, seed=seed)
        assert 0 <= example.prefix_length <= len(example.inputs_T), "prefix_length lies outside the example"
        assert (example.labels_T[: max(example.prefix_length - 1, 0)] == -100).all(), (
            "a label inside the prefix: what is read in both directions would be copied; set it to -100"
        )


@both
def test_equal_generators_make_equal_examples(method: type[Objective], encoder: bool) -> None:
    for seed in range(20):
        left, right = (made(method, seed=seed, encoder=encoder)[1] for _ in range(2))
        assert np.array_equal(left.inputs_T, right.inputs_T), (
            "equal generators make other inputs: draw from `rng` alone"
        )
        assert np.array_equal(left.labels_T, right.labels_T), (
            "equal generators make other labels: draw from `rng` alone"
        )


@both
def test_every_token_is_read_or_predicted(method: type[Objective], encoder: bool) -> None:
    """No token of what is used is lost: what is hidden from the input is in the labels."""
    for seed in range(20):
        window_T, example = made(method, seed=seed, encoder=encoder)
        seen = {*example.inputs_T.tolist(), *example.labels_T.tolist()}
        if example.source_S is not None:
            seen |= set(example.source_S.tolist())
        used = [token in seen for token in window_T.tolist()]
        last = max(i for i, is_used in enumerate(used) if is_used)
        assert all(used[: last + 1]), "a token within the used part of the window is gone"
        assert last >= len(window_T) // 3, "less than a third of the window is used"


@both
def test_short_windows_work(method: type[Objective], encoder: bool) -> None:
    for length in (8, 9, 16):
        _, example = made(method, length=length, encoder=encoder)
        assert (example.labels_T != -100).any(), "all labels of a short window are -100"


@both
def test_the_window_is_not_written_to(method: type[Objective], encoder: bool) -> None:
    objective = method()
    window_T = np.arange(65)
    sentinels = np.arange(VOCAB, VOCAB + objective.num_sentinels())
    objective.example(window_T, np.random.default_rng(0), encoder=encoder, sentinels=sentinels)
    assert np.array_equal(window_T, np.arange(65)), "the window was written to: work on a copy"
