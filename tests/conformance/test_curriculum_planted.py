"""The suite of curricula catches what it should."""

import numpy as np
import pytest
from told import told

from harness import Curriculum, SampleReader
from harness.conformance import test_curriculum as suite


class Base(Curriculum):
    """Sorted by number, and right."""

    name = "planted"

    def order(self, order_R: np.ndarray, *, domains_S: np.ndarray, texts: SampleReader) -> np.ndarray:
        return np.sort(order_R)


class Unique(Base):
    name = "unique"

    def order(self, order_R: np.ndarray, *, domains_S: np.ndarray, texts: SampleReader) -> np.ndarray:
        return np.unique(order_R)


class Chance(Base):
    name = "chance"

    def order(self, order_R: np.ndarray, *, domains_S: np.ndarray, texts: SampleReader) -> np.ndarray:
        return np.random.default_rng().permutation(order_R)


class InPlace(Base):
    name = "in_place"

    def order(self, order_R: np.ndarray, *, domains_S: np.ndarray, texts: SampleReader) -> np.ndarray:
        order_R.sort()
        return order_R


class Shrinking(Base):
    name = "shrinking"

    def visible(self, length: int, progress: float) -> int:
        return max(1, int(length * (1 - progress)))


def test_a_right_curriculum_passes() -> None:
    for name, test in vars(suite).items():
        if name.startswith("test_"):
            test(Base)


@pytest.mark.parametrize(
    ("method", "test"),
    [
        (Unique, suite.test_every_drawn_sample_is_met_as_often_as_drawn),
        (Chance, suite.test_the_order_is_the_same_each_time),
        (InPlace, suite.test_the_draw_is_left_as_it_was),
        (Shrinking, suite.test_the_end_of_a_run_sees_whole_windows),
        (Shrinking, suite.test_a_window_never_shrinks_during_a_run),
    ],
)
def test_a_planted_bug_is_caught(method: type[Curriculum], test: object) -> None:
    with told():
        test(method)  # type: ignore[operator]
