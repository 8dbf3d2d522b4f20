"""Search spaces: grids, random points, and TPE as Optuna itself would search."""

from typing import Any

import pytest

from harness.errors import ConfigError
from harness.plan.space import Dimension, dimension, drawn, grid, tpe

RATE = Dimension(path="pretrain.learning_rate", low=1e-3, high=1e-1, log=True)
DECAY = Dimension(path="optimizer.weight_decay", values=(0.0, 0.1))


def test_a_grid_over_a_log_range_has_equal_ratios_and_both_ends() -> None:
    points = [point[RATE.path] for point in grid([RATE], trials=3, where="adamw")]
    assert points == [0.001, 0.01, 0.1]


def test_a_grid_crosses_lists_with_ranges() -> None:
    points = grid([RATE, DECAY], trials=6, where="adamw")
    assert len(points) == 6
    assert {point[DECAY.path] for point in points} == {0.0, 0.1}


@pytest.mark.parametrize(("dimensions", "trials"), [([DECAY], 3), ([RATE, DECAY], 5), ([RATE], 1)])
def test_a_grid_of_another_size_is_refused_with_sizes_that_work(
    dimensions: list[Dimension], trials: int
) -> None:
    with pytest.raises(ConfigError, match=r"use one of \[\d"):
        grid(dimensions, trials=trials, where="adamw")


def test_random_points_lie_at_the_same_shares_of_every_methods_range() -> None:
    lower = Dimension(path=RATE.path, low=1e-5, high=1e-3, log=True)
    ours, theirs = (drawn([dim], trials=8, seed=3) for dim in (RATE, lower))
    for a, b in zip(ours, theirs, strict=True):
        assert a[RATE.path] / b[RATE.path] == pytest.approx(100, rel=2e-3)
    assert ours == drawn([RATE], trials=8, seed=3)
    assert ours != drawn([RATE], trials=8, seed=4)
    assert all(1e-3 <= point[RATE.path] <= 1e-1 for point in ours)


def test_an_integer_range_gives_integers() -> None:
    rank = dimension("peft.rank", {"low": 1, "high": 64, "log": True}, where="tune.space", integer=True)
    assert {type(point["peft.rank"]) for point in drawn([rank], trials=5, seed=0)} == {int}


def test_tpe_asks_for_what_optunas_own_study_would_try() -> None:
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def loss(rate: float, decay: float) -> float:
        return (rate - 0.02) ** 2 + decay

    def objective(trial: Any) -> float:
        rate = trial.suggest_float(RATE.path, RATE.low, RATE.high, log=True)
        return loss(rate, trial.suggest_categorical(DECAY.path, DECAY.values))

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=7, n_startup_trials=4))
    study.optimize(objective, n_trials=8)
    told: list[tuple[dict[str, Any], float | None]] = []
    for _ in range(8):
        point = tpe([RATE, DECAY], trials=8, seed=7, told=told)
        told.append((point, loss(point[RATE.path], point[DECAY.path])))
    assert [point for point, _ in told] == [trial.params for trial in study.trials]


def test_tpe_goes_on_after_a_failed_trial() -> None:
    pytest.importorskip("optuna")
    first = tpe([RATE], trials=4, seed=0, told=[])
    second = tpe([RATE], trials=4, seed=0, told=[(first, None)])
    assert second != first


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ([], "nothing to choose"),
        ([0.1], "nothing to choose"),
        ({"low": 1e-2, "high": 1e-3}, "is empty: low=0.01 must be less than high=0.001"),
        ({"low": 1e-2, "high": 1e-2}, "is empty"),
        ({"low": 0, "high": 1e-2, "log": True}, "log range begins above 0"),
        ({"low": 1e-3}, "needs the numbers `low` and `high`"),
        ({"lo": 1e-3, "high": 1e-2}, "Did you mean 'low'"),
        (3e-4, r"give \[values\] or"),
    ],
)
def test_a_range_that_cannot_be_searched_is_refused(spec: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dimension("pretrain.learning_rate", spec, where="tune.space")
