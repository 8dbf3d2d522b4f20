"""Span corruption: choose spans, replace each by a sentinel, spell them out in the target."""

import numpy as np

from harness import Example


def noise_mask(
    length: int, *, density: float, mean_span: float, max_spans: int, rng: np.random.Generator
) -> np.ndarray:
    """Which of `length` tokens are noise: round(length * density) of them in spans of random lengths.

    Noise and kept spans alternate, beginning with a kept one, each of at least one token.
    Paper: Raffel et al. 2019, arXiv:1910.10683, section 3.1.4; T5's random_spans_noise_mask
    Shapes: -> length, bool
    """
    num_noise = min(max(round(length * density), 1), length - 1)
    num_spans = min(max(round(num_noise / mean_span), 1), num_noise, length - num_noise, max_spans)
    noise, kept = (_segments(count, num_spans, rng) for count in (num_noise, length - num_noise))
    lengths = np.stack([kept, noise], axis=1).reshape(-1)
    return np.repeat(np.tile([False, True], num_spans), lengths)


def _segments(count: int, num_segments: int, rng: np.random.Generator) -> np.ndarray:
    """`count` split into random positive parts."""
    cuts = np.sort(rng.permutation(count - 1)[: num_segments - 1]) + 1
    return np.diff(np.concatenate([[0], cuts, [count]]))


def corrupted(
    tokens_T: np.ndarray, noise_T: np.ndarray, sentinels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(tokens with each noise span replaced by a sentinel, sentinels each followed by its span)."""
    return _with_sentinels(tokens_T, noise_T, sentinels), _with_sentinels(tokens_T, ~noise_T, sentinels)


def _with_sentinels(tokens_T: np.ndarray, hidden_T: np.ndarray, sentinels: np.ndarray) -> np.ndarray:
    starts_T = hidden_T & ~np.concatenate([[False], hidden_T[:-1]])
    out_T = tokens_T.copy()
    out_T[starts_T] = sentinels[: int(starts_T.sum())]
    left_T: np.ndarray = out_T[starts_T | ~hidden_T]
    return left_T


def fitted(window_T: np.ndarray, *, density: float, mean_span: float, max_spans: int) -> int:
    """Most tokens of a window whose corrupted input and target, one after the other, fit into it."""
    spans = 0
    for length in range(len(window_T) - 1, 1, -1):
        num_noise = min(max(round(length * density), 1), length - 1)
        spans = min(max(round(num_noise / mean_span), 1), num_noise, length - num_noise, max_spans)
        if length + 2 * spans <= len(window_T) - 1:
            return length
    return 2


def joined(source_S: np.ndarray, target_T: np.ndarray, *, encoder: bool) -> Example:
    """The example that reads a source and predicts a target."""
    if encoder:
        # The target's first token is a sentinel that is always the same: the decoder starts from it.
        return Example(inputs_T=target_T[:-1], labels_T=target_T[1:], source_S=source_S, keeps_order=False)
    whole_T = np.concatenate([source_S, target_T])
    labels_T = whole_T[1:].copy()
    labels_T[: len(source_S) - 1] = -100
    return Example(inputs_T=whole_T[:-1], labels_T=labels_T, prefix_length=len(source_S), keeps_order=False)
