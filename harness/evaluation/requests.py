"""What is scored and what comes of it: requests, the rows that answer them, and scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor


class ScoreRequest(NamedTuple):
    """Score `continuation` after `context`; both are token ids, neither is empty."""

    context: Sequence[int]
    continuation: Sequence[int]


class Score(NamedTuple):
    """Log-probabilities (natural logarithm) of a continuation's tokens, and whether each is the likeliest."""

    log_probs: Tensor
    greedy: bool

    @property
    def total(self) -> float:
        """Their sum, added in float64."""
        return float(self.log_probs.double().sum())


def rolling(
    tokens: Sequence[int], *, prefix: int, max_length: int, stride: int | None = None
) -> Iterator[ScoreRequest]:
    """Windows that predict every token of a text once, each with as much context as still fits.

    After the first window each predicts `stride` tokens, null = as many as it holds: the fewer, the more
    context every token has.
    Source: lm-eval's get_rolling_token_windows with context_len = max_length - stride + 1
    """
    done = 0
    while done < len(tokens):
        end = min(len(tokens), done + (max_length if not done or stride is None else stride))
        context = tokens[max(0, end - max_length - 1) : done] if done else [prefix]
        yield ScoreRequest(context, tokens[done:end])
        done = end


@dataclass(kw_only=True)
class Row:
    """One input sequence with the continuations it answers (single-token choices share one)."""

    ids: tuple[int, ...]
    shared: int
    """Leading tokens that other rows of the same context have too."""
    wants: list[tuple[int, Sequence[int]]] = field(default_factory=list)
    """(index of the request, its continuation); the row's last token predicts the last of it."""

    @property
    def first_needed(self) -> int:
        return min(len(self.ids) - len(continuation) for _, continuation in self.wants)


Scores = dict[int, Score]
"""By index of the request."""


def tree_size(group: Sequence[Row]) -> tuple[int, int]:
    """(tokens of a group's context, tokens of its continuations that are read)."""
    context = group[0].shared + 1
    return context, sum(len(row.ids) - context for row in group)
