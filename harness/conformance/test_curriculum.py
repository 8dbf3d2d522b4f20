"""What every curriculum must do."""

import numpy as np

from harness.axes.curriculum import Curriculum, SampleReader

AXIS = "curriculum"
DOMAINS_S = np.array(["code"] * 30 + ["docs"] * 20)


class Samples(SampleReader):
    """Fifty samples whose vocabulary grows with their number."""

    def __getitem__(self, index: int) -> np.ndarray:
        return np.random.default_rng(index).integers(0, 2 + index, size=64)

    def __len__(self) -> int:
        return len(DOMAINS_S)


def ordered(method: type[Curriculum], order_R: np.ndarray) -> np.ndarray:
    """The order under the method's trial options."""
    return method(method.trial()).order(order_R, domains_S=DOMAINS_S, texts=Samples())


def drawn() -> np.ndarray:
    """A draw with repetition, as mixtures make it."""
    return np.random.default_rng(0).integers(0, len(DOMAINS_S), size=80)


def test_every_drawn_sample_is_met_as_often_as_drawn(method: type[Curriculum]) -> None:
    order_R = drawn()
    assert sorted(ordered(method, order_R).tolist()) == sorted(order_R.tolist()), (
        "a drawn sample is lost or met more often than drawn: permute order_R, no more"
    )


def test_the_order_is_the_same_each_time(method: type[Curriculum]) -> None:
    assert np.array_equal(ordered(method, drawn()), ordered(method, drawn())), (
        "the same draw is ordered otherwise at a second call: draw nothing outside the generator given"
    )


def test_the_draw_is_left_as_it_was(method: type[Curriculum]) -> None:
    order_R = drawn()
    ordered(method, order_R)
    assert np.array_equal(order_R, drawn()), "the draw was changed in place: order a copy"


def test_the_end_of_a_run_sees_whole_windows(method: type[Curriculum]) -> None:
    assert method(method.trial()).visible(128, 1.0) == 128, "visible(length, 1.0) must be the whole length"


def test_a_window_never_shrinks_during_a_run(method: type[Curriculum]) -> None:
    lengths = [method(method.trial()).visible(128, step / 20) for step in range(21)]
    assert lengths == sorted(lengths), f"the visible window shrinks within a run: {lengths}"
    assert lengths[0] >= 1, "a window of no token"
