"""Span corruption: choose spans, replace each by a sentinel, spell them out in the target."""

import numpy as np

from harness import ConfigError, Example


def noise_counts(length: int, *, density: float, mean_span: float) -> tuple[int, int]:
    """Hidden tokens and spans of a sequence."""
    num_noise = min(max(round(length * density), 1), length - 1)
    return num_noise, min(max(round(num_noise / mean_span), 1), num_noise, length - num_noise)


def check_spans(length: int, *, density: float, mean_span: float, max_spans: int) -> None:
    """Refuse a sequence that takes more spans than there are sentinels for.

    Raises: ConfigError saying how many it takes
    """
    spans = noise_counts(length, density=density, mean_span=mean_span)[1]
    if spans > max_spans:
        raise ConfigError(
            f"objective.max_spans={max_spans}, but {length} tokens with density {density:g} and spans of "
            f"{mean_span:g} take {spans}; raise objective.max_spans or shorten pretrain.sequence_length"
        )


def noise_mask(
    length: int, *, density: float, mean_span: float, max_spans: int, rng: np.random.Generator
) -> np.ndarray:
    """Which of `length` tokens are noise: round(length * density) of them in spans of random lengths.

    Noise and kept spans alternate, beginning with a kept one, each of at least one token.
    Paper: Raffel et al. 2019, arXiv:1910.10683, section 3.1.4; T5's random_spans_noise_mask
    Shapes: -> length, bool
    Raises: ConfigError where that takes more than `max_spans`
    """
    num_noise, num_spans = noise_counts(length, density=density, mean_span=mean_span)
    check_spans(length, density=density, mean_span=mean_span, max_spans=max_spans)
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
    """(tokens with each noise span replaced by a sentinel, sentinels each followed by its span).

    One more sentinel ends the target, as in figure 2 of the paper.
    """
    source, target = (_with_sentinels(tokens_T, hidden_T, sentinels) for hidden_T in (noise_T, ~noise_T))
    if noise_T[-1]:  # else the sentinel of what follows the last span ends it
        target = np.append(target, sentinels[_count(noise_T)])
    return source, target


def _with_sentinels(tokens_T: np.ndarray, hidden_T: np.ndarray, sentinels: np.ndarray) -> np.ndarray:
    starts_T = hidden_T & ~np.concatenate([[False], hidden_T[:-1]])
    out_T = tokens_T.copy()
    out_T[starts_T] = sentinels[: int(starts_T.sum())]
    left_T: np.ndarray = out_T[starts_T | ~hidden_T]
    return left_T


def _count(hidden_T: np.ndarray) -> int:
    """Spans that are hidden."""
    return int((hidden_T & ~np.concatenate([[False], hidden_T[:-1]])).sum())


def fitted(window: int, *, density: float, mean_span: float, encoder: bool) -> int:
    """Most tokens of which what a decoder reads fits into a window: input and target, or the target alone.

    Raises: ConfigError where not even two do
    """
    for length in range(window, 1, -1):
        num_noise, spans = noise_counts(length, density=density, mean_span=mean_span)
        if (num_noise + spans if encoder else length + 2 * spans) + 1 <= window:
            return length
    raise ConfigError(
        f"a sequence of {window - 1} tokens has no room for a span and its sentinels; raise "
        "pretrain.sequence_length"
    )


def joined(source_S: np.ndarray, target_T: np.ndarray, *, encoder: bool) -> Example:
    """The example that reads a source and predicts a target."""
    if encoder:
        # The target's first token is a sentinel that is always the same: the decoder starts from it.
        return Example(inputs_T=target_T[:-1], labels_T=target_T[1:], source_S=source_S, keeps_order=False)
    whole_T = np.concatenate([source_S, target_T])
    labels_T = whole_T[1:].copy()
    labels_T[: len(source_S) - 1] = -100
    return Example(inputs_T=whole_T[:-1], labels_T=labels_T, prefix_length=len(source_S), keeps_order=False)
