"""Curriculum: the order in which training samples are drawn."""

from abc import abstractmethod

import numpy as np

from harness.method import Method


class Curriculum(Method):
    """Order of samples within a pretraining run.

    Shapes: `domains_S`, `lengths_S`, `scores_S` describe S samples; the result is a permutation or a
    draw with repetition, of S' sample indices in the order they are met
    """

    axis = "curriculum"
    default = "none"

    @abstractmethod
    def order(
        self,
        order_S: np.ndarray,
        *,
        domains_S: np.ndarray,
        texts: "SampleReader",
    ) -> np.ndarray:
        """The order in which samples are met, from the mixture's own random order."""
        raise NotImplementedError


class SampleReader:
    """Reads the token ids of one sample; scores by difficulty need it."""

    def __getitem__(self, index: int) -> np.ndarray:
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError
