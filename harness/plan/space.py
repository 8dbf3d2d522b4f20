"""A search space: what a tuned option may be, and the points that grid, random search and TPE try."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from harness.errors import ConfigError, MissingExtraError, UnknownNameError

KEYS = ("low", "high", "log")
Point = dict[str, Any]
"""Option -> value."""
STARTUP = 10
"""Trials that TPE draws at random before it models anything, at most half of all (Optuna's default: 10)."""


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One tuned option: a list of values, or a range.

    Units: `low` and `high` in the option's own
    """

    path: str
    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    """Whether equal ratios count alike, instead of equal differences."""
    integer: bool = False

    @property
    def ordered(self) -> bool:
        """Whether its values have a lowest and a highest."""
        return not self.values or all(is_number(value) for value in self.values)

    def at(self, share: float) -> Any:
        """The value a share (0 to 1) of the way along; four significant digits of a range."""
        if self.values:
            return self.values[min(int(share * len(self.values)), len(self.values) - 1)]
        if self.log:
            value = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + share * (self.high - self.low)
        return round(value) if self.integer else float(f"{value:.4g}")

    def text(self) -> str:
        """For people: `1e-4 to 1e-1 (log)`."""
        if self.values:
            return ", ".join(str(value) for value in self.values)
        return f"{self.low:g} to {self.high:g}" + (" (log)" if self.log else "")


def dimension(path: str, spec: Any, *, where: str, integer: bool = False) -> Dimension:
    """A dimension from its YAML: a list of values, or `{low, high, log}`.

    Raises: ConfigError for an empty range, a log range that reaches 0, or what is neither
    """
    name = f"{where}.{path}"
    if isinstance(spec, Sequence) and not isinstance(spec, str):
        if len({str(value) for value in spec}) < 2:
            raise ConfigError(
                f"{name}={list(spec)} leaves nothing to choose; list at least two different values"
            )
        return Dimension(path=path, values=tuple(spec))
    if not isinstance(spec, Mapping):
        raise ConfigError(f"{name}={spec!r}: give [values] or {{low: .., high: .., log: true}}")
    for key in spec:
        if key not in KEYS:
            raise UnknownNameError(what=f"part of the range {name}", name=str(key), known=KEYS)
    low, high, log = spec.get("low"), spec.get("high"), spec.get("log", False)
    if not is_number(low) or not is_number(high):
        raise ConfigError(f"{name}={dict(spec)}: a range needs the numbers `low` and `high`")
    if not isinstance(log, bool):
        raise ConfigError(f"{name}.log={log!r}: write true or false")
    if not low < high:
        raise ConfigError(f"{name} is empty: low={low} must be less than high={high}")
    if log and low <= 0:
        raise ConfigError(
            f"{name}: a log range begins above 0, not at low={low}; raise low, or set log: false"
        )
    return Dimension(path=path, low=low, high=high, log=log, integer=integer)


def grid(dimensions: Sequence[Dimension], *, trials: int, where: str) -> list[Point]:
    """Every combination; ranges have equally many points, their ends among them.

    Raises: ConfigError where no grid has so many points
    """
    listed = math.prod(len(d.values) for d in dimensions if d.values)
    ranges = sum(1 for d in dimensions if not d.values)
    each = round((trials / listed) ** (1 / ranges)) if ranges and trials >= listed else 0
    if listed * each**ranges != trials or (ranges and each < 2):
        fitting = [listed * n**ranges for n in (2, 3, 4)] if ranges else [listed]
        raise ConfigError(
            f"{where}: no grid has tune.trials={trials} points; use one of {fitting}"
            + (", ..." if ranges else "")
            + ", or search=random"
        )
    axes = [
        [d.at(i / (each - 1)) for i in range(each)] if not d.values else list(d.values) for d in dimensions
    ]
    return [
        {d.path: value for d, value in zip(dimensions, values, strict=True)}
        for values in itertools.product(*axes)
    ]


def drawn(dimensions: Sequence[Dimension], *, trials: int, seed: int) -> list[Point]:
    """Independent uniform points; every method gets the same shares of its own ranges."""
    return [
        {d.path: d.at(random.Random(f"{seed}/{d.path}/{i}").random()) for d in dimensions}
        for i in range(trials)
    ]


def tpe(
    dimensions: Sequence[Dimension], *, trials: int, seed: int, told: Sequence[tuple[Point, float | None]]
) -> Point:
    """The point that Optuna's TPE asks for after these (point, loss); a loss of None is a failed trial.

    The study is played again from its start, so the same results give the same points in any process.
    Paper: Bergstra et al. 2011, Algorithms for Hyper-Parameter Optimization
    Raises: MissingExtraError without optuna
    """
    try:
        import optuna
    except ImportError as error:
        raise MissingExtraError(package="optuna", extra="tune", needed_by="tune.search=tpe") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    startup = min(STARTUP, max(1, trials // 2))
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup))
    distributions = {d.path: _distribution(d) for d in dimensions}
    for _, loss in told:
        trial = study.ask(distributions)
        if loss is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, loss)
    return dict(study.ask(distributions).params)


def _distribution(dimension: Dimension) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if dimension.values:
        return CategoricalDistribution(dimension.values)
    if dimension.integer:
        return IntDistribution(round(dimension.low), round(dimension.high), log=dimension.log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
