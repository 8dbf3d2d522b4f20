"""Curriculum: the order in which training samples are drawn."""

from abc import abstractmethod

import numpy as np

from harness.method import Method


class SampleReader:
    """Reads the token ids of one sample; scores by difficulty need it."""

    def __getitem__(self, index: int) -> np.ndarray:
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError


class Curriculum(Method):
    """Order of samples within a pretraining run.

    Shapes: `order_R` holds the R sample numbers that the mixture drew for the run, in random order;
    `domains_S` the domain of each of the S samples there are
    """

    axis = "curriculum"
    default = "none"
    moves_facts = frozenset({"counts", "sequence_length"})

    @classmethod
    def trial(cls) -> Method.Config:
        """Options the conformance suite runs it with, on the domains `code` and `docs`."""
        return cls.Config()

    @abstractmethod
    def order(self, order_R: np.ndarray, *, domains_S: np.ndarray, texts: SampleReader) -> np.ndarray:
        """The R sample numbers in the order they are met."""
        raise NotImplementedError

    def visible(self, length: int, progress: float) -> int:
        """Longest stretch of a window of `length` tokens that sees itself, at a share of the run done."""
        return length
