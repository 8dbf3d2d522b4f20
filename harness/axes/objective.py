"""Objective: what pretraining predicts."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from harness.errors import ConfigError
from harness.method import Method


@dataclass(frozen=True, kw_only=True)
class Example:
    """One training sequence, before batching.

    Shapes: `inputs_T`, `labels_T` int64 of one length; labels are the token each position predicts
    (already shifted), -100 where nothing is predicted. For an encoder-decoder, `source_S` feeds the
    encoder.
    Raises: ConfigError for a prefix longer than the sequence
    """

    inputs_T: np.ndarray
    labels_T: np.ndarray
    prefix_length: int = 0
    """Leading tokens that see each other in both directions (prefix decoder)."""
    source_S: np.ndarray | None = None
    keeps_order: bool = True
    """Whether the inputs are the window's tokens in their order, so that documents end where eos stands;
    otherwise the sequence counts as one document."""

    def __post_init__(self) -> None:
        if not 0 <= self.prefix_length <= len(self.inputs_T):
            raise ConfigError(
                f"a prefix of {self.prefix_length} tokens does not fit a sequence of {len(self.inputs_T)}; "
                "raise sequence_length or shorten the prefix"
            )


class Objective(Method):
    """Turns a window of tokens into a prediction problem.

    State: none; randomness comes from the generator that is handed in
    """

    axis = "objective"
    default = "language_modeling"
    moves_facts = frozenset({"counts"})

    @abstractmethod
    def example(
        self,
        window_T: np.ndarray,
        rng: np.random.Generator,
        *,
        encoder: bool,
        sentinels: np.ndarray,
    ) -> Example:
        """The example made of a window of T + 1 tokens; `sentinels` are the ids of mask tokens in order.

        `encoder` says whether the architecture has one; without it source and target are joined.
        """
        raise NotImplementedError

    def num_sentinels(self) -> int:
        """Sentinel tokens the vocabulary must hold for this objective."""
        return 0
