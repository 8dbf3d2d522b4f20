"""Difficulty curriculum: easy samples first."""

from dataclasses import dataclass
from enum import Enum

import numpy as np

from harness import ConfigError, Curriculum, Method, SampleReader, hookimpl


class Measure(Enum):
    """What makes a sample difficult."""

    rarity = "rarity"
    """Mean surprise of its tokens under their overall frequencies."""
    diversity = "diversity"
    """Share of its tokens that are different."""


class Difficulty(Curriculum):
    """Samples sorted by a score of their tokens; a share stays in random places.

    Paper: Bengio et al. 2009, Curriculum learning; Platanios et al. 2019, arXiv:1903.09848 (rarity)
    """

    name = "difficulty"

    @dataclass(frozen=True, kw_only=True)
    class Config(Curriculum.Config):
        measure: Measure = Measure.rarity
        """What makes a sample difficult."""
        descending: bool = False
        """Whether the most difficult come first."""
        random_share: float = 0.0
        """Share of the samples that keep a random place (0 to 1)."""

        def __post_init__(self) -> None:
            if not 0 <= self.random_share <= 1:
                raise ConfigError(f"curriculum.random_share={self.random_share} must lie in [0, 1]")

    config: Config

    def order(self, order_R: np.ndarray, *, domains_S: np.ndarray, texts: SampleReader) -> np.ndarray:
        samples_U, inverse_R = np.unique(order_R, return_inverse=True)
        counts_V = np.zeros(1)
        if self.config.measure is Measure.rarity:
            for sample in samples_U:
                ids = texts[int(sample)]
                counts_V = np.pad(counts_V, (0, max(0, int(ids.max()) + 1 - len(counts_V))))
                counts_V += np.bincount(ids, minlength=len(counts_V))
        score_U = np.array([self._score(texts[int(sample)], counts_V) for sample in samples_U])
        score_R = (-score_U if self.config.descending else score_U)[inverse_R]
        place_R = np.argsort(np.argsort(score_R, kind="stable"), kind="stable")
        moved = np.arange(len(order_R)) % 1000 < 1000 * self.config.random_share
        place_R = np.where(moved, np.arange(len(order_R)), place_R)
        return order_R[np.argsort(place_R, kind="stable")]

    def _score(self, ids: np.ndarray, counts_V: np.ndarray) -> float:
        if self.config.measure is Measure.diversity:
            return len(np.unique(ids)) / len(ids)
        return float(-np.log(counts_V[ids] / counts_V.sum()).mean())


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Difficulty]
