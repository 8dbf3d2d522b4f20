"""Statistics of a table: intervals, paired tests, ties, smallest detectable effects.

Two kinds of statement are kept apart. About *methods*: seeds are the replicates, at least three, paired
by seed. About *checkpoints*: the items are the replicates and the models are taken as they are; such a
test says nothing about what another seed would have given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
About = Literal["methods", "checkpoints", "nothing"]

MIN_SEEDS = 3
"""Below this, per-seed differences say nothing about methods: the answer is `undecided`."""
MIN_ITEMS = 10
"""Below this, no test over items is made."""
RESAMPLES = 2000
LEVEL = 0.05
POWER = 0.8


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One side of a comparison.

    Shapes: items_SD, seeds x items with NaN where an item was not scored, rows in the order of `seeds`
    """

    values: Mapping[int, float]
    """Seed -> value as printed."""
    items_SD: Array | None = None
    stderr: float | None = None
    """The evaluator's own standard error, where no items were kept."""
    num_items: int = 0

    @property
    def seeds(self) -> list[int]:
        return sorted(self.values)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean with its 95 % interval and what the interval rests on."""

    mean: float
    low: float | None
    high: float | None
    sd: float | None
    """Standard deviation over seeds."""
    stderr: float | None
    """Standard error over items."""
    num_seeds: int
    num_items: int
    basis: Literal["seeds", "items", "none"]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A difference to a reference, and how far it can be believed."""

    test: str
    """`paired t`, `mixed model`, `McNemar`, `paired bootstrap`, `exact` (nothing sampled), or `none`."""
    about: About
    difference: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    stderr: float | None = None
    num_seeds: int = 0
    num_items: int = 0
    detectable: float | None = None
    """Smallest difference found with 80 % power at the 5 % level, were it alone in the table."""
    reason: str = ""
    """Why no statement about methods is made, where none is."""

    @property
    def significant(self) -> bool:
        if self.test == "exact":
            return self.difference != 0
        p = self.p if self.p_holm is None else self.p_holm
        return p is not None and p <= LEVEL


def t_quantile(df: float, level: float = LEVEL) -> float:
    """Two-sided quantile of Student's t."""
    return _t_quantile(float(df), float(level))


@lru_cache(maxsize=256)
def _t_quantile(df: float, level: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(df, 1 - level / 2))


def t_p_value(t: float, df: float) -> float:
    """Two-sided p of Student's t."""
    from scipy.special import stdtr

    return float(2 * stdtr(df, -abs(t)))


def same(values: Array) -> bool:
    """Whether all values are one number: no replication took place."""
    return bool(np.ptp(values) <= 1e-9 * max(1.0, float(np.abs(values).max())))


def estimate(measured: Measured) -> Estimate:
    """Mean and interval: over seeds where three or more differ, else over items, else none."""
    values = np.array([measured.values[s] for s in measured.seeds])
    n, mean = len(values), float(values.mean())
    sd = float(values.std(ddof=1)) if n > 1 else None
    stderr, num_items = measured.stderr, measured.num_items
    binary: tuple[float, float] | None = None
    if measured.items_SD is not None:
        items_D = item_means(measured.items_SD)
        num_items = len(items_D)
        if num_items > 1:
            stderr = float(items_D.std(ddof=1) / num_items**0.5)
        if num_items and bool(np.isin(items_D, (0, 1)).all()):
            binary = wilson(mean, num_items)
    parts: dict[str, Any] = {
        "mean": mean,
        "sd": sd,
        "stderr": stderr,
        "num_seeds": n,
        "num_items": num_items,
    }
    if n >= MIN_SEEDS and sd is not None and not same(values):
        half = t_quantile(n - 1) * sd / n**0.5
        return Estimate(**parts, low=mean - half, high=mean + half, basis="seeds")
    if stderr is not None and num_items >= MIN_ITEMS:
        half = t_quantile(num_items - 1) * stderr
        low, high = binary or (mean - half, mean + half)
        return Estimate(**parts, low=low, high=high, basis="items")
    return Estimate(**parts, low=None, high=None, basis="none")


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's interval of a share; honest at 0 and 1, where the normal one has no width."""
    z = t_quantile(1e9)
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    return middle - half, middle + half


def item_means(items_SD: Array) -> Array:
    """Mean over seeds of each item that every seed scored."""
    kept = items_SD[:, ~np.isnan(items_SD).any(axis=0)]
    return np.asarray(kept.mean(axis=0))


def compare(a: Measured, b: Measured, *, level: float = LEVEL) -> Comparison:
    """a minus b, paired by seed where three or more seeds differ, else by item.

    Two seeds cannot tell a method from luck: the comparison is then about the checkpoints alone, and
    its reason says so.
    """
    seeds = [s for s in a.seeds if s in b.values]
    if not seeds:
        difference = float(np.mean(list(a.values.values())) - np.mean(list(b.values.values())))
        return Comparison(test="none", about="nothing", difference=difference, reason="no seed in common")
    differences = np.array([a.values[s] - b.values[s] for s in seeds])
    if len(seeds) >= MIN_SEEDS and not same(differences):
        return paired_t(differences, level=level)
    if len(seeds) >= MIN_SEEDS:
        reason = f"all {len(seeds)} seeds differ by the same amount, so seeds are no replicates here"
    else:
        reason = f"{len(seeds)} seed{'s' * (len(seeds) > 1)} where {MIN_SEEDS} are needed to speak of methods"
    if a.items_SD is not None and b.items_SD is not None:
        # Identical replicates add nothing, so one of them stands for all and McNemar stays exact.
        rows = seeds[:1] if len(seeds) >= MIN_SEEDS else seeds
        a_SD, b_SD = (m.items_SD[[m.seeds.index(s) for s in rows]] for m in (a, b) if m.items_SD is not None)
        found = paired_items(a_SD, b_SD, level=level)
        if found.num_items < MIN_ITEMS:
            reason += f"; only {found.num_items} items in common, {MIN_ITEMS} are needed to test them"
        return replace(found, reason=reason, num_seeds=len(seeds), difference=float(differences.mean()))
    mean = float(differences.mean())
    if len(seeds) >= MIN_SEEDS and not a.num_items and not b.num_items and a.stderr is None:
        # A size or a count: nothing was sampled and no seed moves it, so the number is the answer.
        return Comparison(
            test="exact", about="methods", difference=mean, low=mean, high=mean, num_seeds=len(seeds)
        )
    return Comparison(
        test="none",
        about="nothing",
        difference=mean,
        num_seeds=len(seeds),
        reason=reason + "; no items were kept",
    )


def paired_t(differences: Array, *, level: float = LEVEL) -> Comparison:
    """Paired t test over seeds, the claim about methods."""
    n, mean = len(differences), float(differences.mean())
    stderr = float(differences.std(ddof=1) / n**0.5)
    half = t_quantile(n - 1, level) * stderr
    return Comparison(
        test="paired t",
        about="methods",
        difference=mean,
        low=mean - half,
        high=mean + half,
        p=t_p_value(mean / stderr, n - 1),
        stderr=stderr,
        num_seeds=n,
        detectable=detectable(stderr=stderr, df=n - 1),
    )


def paired_items(a_SD: Array, b_SD: Array, *, level: float = LEVEL) -> Comparison:
    """Paired test over the items of fixed checkpoints: McNemar for one binary answer each, else bootstrap."""
    both = ~(np.isnan(a_SD).any(axis=0) | np.isnan(b_SD).any(axis=0))
    a_SN, b_SN = a_SD[:, both], b_SD[:, both]
    n = a_SN.shape[1]
    d_N = a_SN.mean(axis=0) - b_SN.mean(axis=0)
    mean = float(d_N.mean()) if n else float("nan")
    if n < MIN_ITEMS:
        return Comparison(test="none", about="nothing", difference=mean, num_items=n)
    binary = len(a_SN) == 1 and bool(np.isin(a_SN, (0, 1)).all() and np.isin(b_SN, (0, 1)).all())
    stderr = float(d_N.std(ddof=1) / n**0.5)
    if stderr == 0:
        # Every item moved by the same amount: equal answers, or a constant shift that no item contradicts.
        p = 1.0 if mean == 0 else 2.0 ** (1 - n)
        low = high = mean
    elif binary:
        p = mcnemar(int((d_N > 0).sum()), int((d_N < 0).sum()))
        half = t_quantile(n - 1, level) * stderr
        low, high = mean - half, mean + half
    else:
        p, low, high = bootstrap(d_N, level=level)
    return Comparison(
        test="McNemar" if binary else "paired bootstrap",
        about="checkpoints",
        difference=mean,
        low=low,
        high=high,
        p=p,
        stderr=stderr,
        num_items=n,
        detectable=detectable(stderr=stderr, df=n - 1),
    )


def mcnemar(won: int, lost: int) -> float:
    """Exact two-sided p of McNemar's test on the discordant items."""
    from scipy.special import bdtr

    return min(1.0, float(2 * bdtr(min(won, lost), won + lost, 0.5))) if won + lost else 1.0


def bootstrap(d_N: Array, *, level: float = LEVEL) -> tuple[float, float, float]:
    """p, low, high of a mean difference by the studentized bootstrap over items (fixed stream).

    Error: p is at least 1 / (RESAMPLES + 1)
    """
    n = len(d_N)
    weights_BN = resampling_weights(n)
    mean, stderr = d_N.mean(), d_N.std(ddof=1) / n**0.5
    means_B = weights_BN @ d_N / n
    squares_B = weights_BN @ (d_N**2) / n
    errors_B = np.sqrt(np.maximum(squares_B - means_B**2, 0) / (n - 1))
    usable = errors_B > 0
    t_B = np.sort((means_B[usable] - mean) / errors_B[usable])
    t = mean / stderr
    p = (1 + float((np.abs(t_B) >= abs(t)).sum())) / (len(t_B) + 1)
    lower, upper = np.quantile(t_B, (level / 2, 1 - level / 2))
    return min(1.0, p), float(mean - upper * stderr), float(mean - lower * stderr)


@lru_cache(maxsize=8)
def resampling_weights(n: int) -> Array:
    """How often each of n items is drawn in each resample; RESAMPLES x n, the same for every cell."""
    rng = np.random.default_rng(20230331)
    return rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float64)


def mixed_model(values_CS: Array, *, baseline: int, level: float = LEVEL) -> list[Comparison]:
    """Differences to one cell with the seed as a random block and one residual spread for all cells.

    More powerful than pairs at few seeds, at the price of assuming equal spread. For complete tables the
    estimate, its error and df = (C - 1)(S - 1) are those of the mixed model by REML.
    Shapes: values_CS, cells x seeds, no gaps
    """
    num_cells, num_seeds = values_CS.shape
    residual_CS = (
        values_CS - values_CS.mean(axis=1, keepdims=True) - values_CS.mean(axis=0) + values_CS.mean()
    )
    df = (num_cells - 1) * (num_seeds - 1)
    stderr = float((2 * (residual_CS**2).sum() / df / num_seeds) ** 0.5)
    found = []
    for c in range(num_cells):
        mean = float(values_CS[c].mean() - values_CS[baseline].mean())
        half = t_quantile(df, level) * stderr
        p = t_p_value(mean / stderr, df) if stderr > 0 else None
        found.append(
            Comparison(
                test="mixed model",
                about="methods",
                difference=mean,
                low=mean - half,
                high=mean + half,
                p=p,
                stderr=stderr,
                num_seeds=num_seeds,
                detectable=detectable(stderr=stderr, df=df),
            )
        )
    return found


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values; controls the chance of any false positive in the family.

    Differs: equal to statsmodels' multipletests, which collects garbage at every call (0.1 s)
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values)
    stepped = np.maximum.accumulate(values[order] * (len(values) - np.arange(len(values))))
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(stepped, 1)
    return [float(p) for p in adjusted]


def detectable(*, stderr: float, df: float, level: float = LEVEL, power: float = POWER) -> float:
    """Smallest true difference that a two-sided t test finds with the stated power."""
    return stderr * noncentrality(df, level, power)


@lru_cache(maxsize=1024)
def noncentrality(df: float, level: float, power: float) -> float:
    """Shift of Student's t, in standard errors, at which the test reaches its power."""
    from scipy.optimize import brentq
    from scipy.special import nctdtr, ndtri, stdtrit

    critical = float(stdtrit(df, 1 - level / 2))
    if df > 200:
        return float(ndtri(1 - level / 2) + ndtri(power))
    return float(brentq(lambda shift: 1 - nctdtr(df, shift, critical) - power, 0, 10 * critical + 10))
