"""One computation behind every mark, interval, claim and colour: simultaneous comparisons over seeds.

A comparison is a contrast of configurations. Comparisons that are asked together are a family, whose
intervals all cover with 95 %; a contrast that stands in the table and in a claim has one interval, the wider.
Methods are compared over seeds (blocks) with variances pooled over configurations; where seeds are fewer than
three or are one run, the documents of these checkpoints are resampled instead, and nothing is said about
methods.

Guards: pooled variances are wrong for an arm that is noisier than the rest. So an arm weighs with the larger
of its moderated variance at the family's critical value and its own variance at Student's t, and a difference
must also stand out from its own per-seed spread. The levels of these two are calibrated by simulation
(tests/report/test_calibration.py, tests/benchmarks/bench_calibration.py): one arm up to 20 times noisier,
3 to 10 seeds, 3 to 25 arms.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from harness.report.documents import max_t_bootstrap
from harness.report.frames import Levels, Results
from harness.report.model import Array, Parts, SeedModel, own_parts
from harness.report.runs import tree
from harness.report.simultaneous import CANDIDATES, MaxT
from harness.report.statistics import LEVEL, MIN_ITEMS, MIN_SEEDS, POWER, noncentrality, same

About = Literal["methods", "checkpoints", "nothing"]
Selection = Mapping[str, str]
Key = tuple[tuple[str, Levels, float], ...]
"""What tells contrasts apart, whatever their direction."""

GUARD_PER_SEED, GUARD_PER_PEER = 2.7, 1.5
"""The level of an arm's own t, relative to the family's: max(2.7 / seeds, 1.5 / peers), at most 1."""
GUARD_OF_DIFFERENCE = 2.0
"""The level of a difference's own paired t, relative to the family's."""


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of configurations that is 0 where nothing differs, over some seeds."""

    weights: tuple[tuple[str, Levels, float], ...]
    """(metric, configuration, weight), sorted."""
    seeds: tuple[int, ...]
    left_out: str = ""
    """What of the other factors' combinations could not be used on both sides."""
    dropped: tuple[tuple[Levels, float], ...] = ()
    """Those of them that both sides have, with their side's weight: their divergence counts all the same."""

    @property
    def key(self) -> Key:
        """The same for a contrast and its reverse."""
        flip = bool(self.weights) and self.weights[0][2] < 0
        return tuple((m, v, round(-w if flip else w, 9)) for m, v, w in self.weights)

    @property
    def metrics(self) -> set[str]:
        return {metric for metric, _, _ in self.weights}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A difference, its simultaneous interval, and how far it can be believed."""

    test: str
    """`simultaneous t`, `document bootstrap`, `exact` (nothing sampled), or `none`."""
    about: About
    difference: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    """Adjusted for the whole family: at most 5 % where the interval excludes 0."""
    stderr: float | None = None
    df: float | None = None
    num_seeds: int = 0
    num_items: int = 0
    family: int = 0
    """How many comparisons are covered together."""
    detectable: float | None = None
    """Smallest difference that this comparison finds with 80 % power."""
    drawn: bool = True
    """Whether another seed could have given other numbers."""
    reason: str = ""
    """Why no statement about methods is made, where none is."""
    left_out: str = ""
    diverged: tuple[int, int] = (0, 0)
    """Seeds at which the side that is added, and the one that is taken away, diverged."""

    @property
    def significant(self) -> bool:
        """Whether the interval excludes 0."""
        return self.excludes(0.0)

    def excludes(self, value: float) -> bool:
        return self.low is not None and self.high is not None and not self.low <= value <= self.high

    def reversed(self) -> Comparison:
        """The same of the reversed contrast."""
        low, high = (None if end is None else -end for end in (self.high, self.low))
        return replace(self, difference=-self.difference, low=low, high=high, diverged=self.diverged[::-1])

    def flattered(self, *, higher_is_better: bool) -> bool:
        """Whether the better side diverged at seeds where the other did not: its mean leaves its worst out.

        The convention: what diverged is never better on the seeds that are left; it may be worse on them.
        """
        added, taken = self.diverged
        return added > taken if (self.difference > 0) == higher_is_better else taken > added


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Half the width of a simultaneous interval, and the adjusted p."""

    half: float
    p: float


def interval(parts: Parts, family: MaxT, *, level: float = LEVEL) -> Interval:
    """The guarded simultaneous interval of a contrast over seeds.

    Raises: ValueError with fewer than two seeds
    """
    from scipy.special import stdtrit

    n = parts.num_seeds
    if n < 2:
        raise ValueError("an interval over seeds needs two")
    difference = abs(float(parts.per_seed_S.mean()))
    levels_C = family.levels(df=parts.df)
    share_A = np.minimum(1.0, np.maximum(GUARD_PER_SEED / n, GUARD_PER_PEER / np.maximum(parts.peers_A, 1)))
    shares, which_A = np.unique(share_A, return_inverse=True)
    t_GC = stdtrit(n - 1, 1 - np.maximum(shares[:, None] * levels_C[None, :], 1e-15) / 2)
    squares_AC = np.maximum(
        parts.moderated_A[:, None] * CANDIDATES[None, :] ** 2, parts.own_A[:, None] * t_GC[which_A] ** 2
    )
    half_C = np.sqrt(parts.squares_A @ squares_AC / n)
    own = float(parts.per_seed_S.std(ddof=1)) / n**0.5
    own_level_C = np.minimum(1.0, GUARD_OF_DIFFERENCE * levels_C)
    half_C = np.maximum(half_C, own * stdtrit(n - 1, 1 - np.maximum(own_level_C, 1e-15) / 2))
    half_C = np.maximum.accumulate(half_C)
    half = float(np.interp(-level, -levels_C, half_C))
    if half == 0:
        return Interval(half=0.0, p=0.0 if difference > 0 else 1.0)
    p = float(np.interp(difference, half_C, levels_C))
    # At the edge interpolation must not part the p from the interval.
    p = min(p, level) if difference > half else max(p, level)
    return Interval(half=half, p=min(1.0, max(0.0, p)))


class Decisions:
    """All comparisons of one report: families are declared first, then every contrast has one answer."""

    def __init__(self, results: Results) -> None:
        self.results = results
        self._families: dict[str, dict[Key, Contrast]] = {}
        self._answers: dict[tuple[Key, tuple[str, ...]], Comparison] = {}
        self._models: dict[str, SeedModel] = {}
        self._maxima: dict[str, MaxT] = {}
        self._sides: dict[str, int] = {}

    # What is compared

    def contrast(self, sides: Sequence[tuple[float, Selection]], metric: str) -> Contrast | None:
        """A sum of averages over the same other levels and seeds; None where a side lacks them."""
        found = self.results.sides([where for _, where in sides], metric)
        if found is None:
            return None
        terms = [
            (metric, levels, weight / len(own))
            for (weight, _), own in zip(sides, found.chosen, strict=True)
            for levels in own
        ]
        dropped = tuple(
            (levels, weight) for (weight, _), own in zip(sides, found.dropped, strict=True) for levels in own
        )
        return Contrast(added(terms), tuple(found.seeds), found.left_out, dropped)

    def contrast_of_metrics(self, sides: Sequence[tuple[float, str, Selection]]) -> Contrast | None:
        """A sum over different metrics, each over all that it has."""
        terms: list[tuple[str, Levels, float]] = []
        seeds: set[int] | None = None
        for weight, metric, where in sides:
            chosen = self.results.configurations(where)
            own = set(self.results.seeds_with(chosen, metric)) if chosen else set()
            seeds = own if seeds is None else seeds & own
            terms += [(metric, levels, weight / len(chosen)) for levels in chosen]
        return Contrast(added(terms), tuple(sorted(seeds))) if seeds else None

    def declare(self, family: str, contrasts: Iterable[Contrast], *, sides: int = 2) -> None:
        """Contrasts that are asked together. Called before the first answer is read.

        A family called `view ...` (a figure, comparisons with the best) counts only for contrasts that no
        other family holds. `sides=1` where only whether the first is larger is asked.
        """
        known = self._families.setdefault(family, {})
        self._sides[family] = sides
        for contrast in contrasts:
            if contrast.weights:
                known.setdefault(contrast.key, contrast)

    # The answer

    def compare(self, contrast: Contrast) -> Comparison:
        """The one answer to a contrast: that of the families which declare it, the widest of several."""
        key = contrast.key
        holding = [name for name, members in self._families.items() if key in members]
        families = [name for name in holding if not name.startswith("view ")] or holding
        place = (key, tuple(families))
        if place not in self._answers:
            self._answers[place] = self._answer(canonical(contrast), families)
        found = self._answers[place]
        found = found if contrast.weights == canonical(contrast).weights else found.reversed()
        return replace(found, left_out=contrast.left_out, diverged=self._diverged(contrast))

    def _diverged(self, contrast: Contrast) -> tuple[int, int]:
        """How many seeds of either side ended without a model."""
        both = [*((levels, weight) for _, levels, weight in contrast.weights), *contrast.dropped]
        added = [levels for levels, weight in both if weight > 0]
        taken = [levels for levels, weight in both if weight < 0]
        return len(self.results.diverged(added)), len(self.results.diverged(taken))

    def _answer(self, contrast: Contrast, families: Sequence[str]) -> Comparison:
        seeds = contrast.seeds
        per_seed_S = self._per_seed(contrast)
        scale = max((abs(w * self._value(m, v, s)) for m, v, w in contrast.weights for s in seeds), default=0)
        if np.abs(per_seed_S).max(initial=0) <= 1e-12 * max(scale, 1e-300):
            per_seed_S = np.zeros_like(per_seed_S)
        mean = float(per_seed_S.mean())
        if not any(self.results.replicated(v) for _, v, _ in contrast.weights):
            if not any(self.results.sampled(m) for m, _, _ in contrast.weights):
                return exact(mean, num_seeds=len(seeds))
            same_run = self._of_documents(contrast, families, mean, one_run(len(seeds)))
            return replace(same_run, drawn=False)
        if len(seeds) < MIN_SEEDS:
            return self._of_documents(contrast, families, mean, too_few(len(seeds)))
        if same(per_seed_S) and not self._varies(contrast):
            # Sizes and counts: no seed moves them, whoever draws it.
            return exact(mean, num_seeds=len(seeds))
        parts = self._parts(contrast)
        found = [(interval(parts, self._maximum(name)), self._maximum(name)) for name in families] or [
            (interval(parts, MaxT([0.0])), MaxT([0.0]))
        ]
        widest, maximum = max(found, key=lambda pair: pair[0].half)
        stderr = (parts.variance / len(seeds)) ** 0.5
        critical = widest.half / stderr if stderr > 0 else 0.0
        most = self._most(contrast)
        return Comparison(
            test="simultaneous t",
            about="methods",
            difference=mean,
            low=max(mean - widest.half, -most),
            high=min(mean + widest.half, most),
            p=widest.p,
            stderr=stderr,
            df=parts.df,
            num_seeds=len(seeds),
            family=maximum.size,
            detectable=stderr * noncentrality(parts.df, critical, POWER) if stderr > 0 else None,
        )

    def _most(self, contrast: Contrast) -> float:
        """The largest difference that can be: that of all and none, between shares."""
        if all(self.results.is_share(metric) for metric in contrast.metrics):
            return sum(weight for _, _, weight in contrast.weights if weight > 0)
        return float("inf")

    def _per_seed(self, contrast: Contrast) -> Array:
        return np.array(
            [
                sum(w * self._value(metric, levels, seed) for metric, levels, w in contrast.weights)
                for seed in contrast.seeds
            ],
            dtype=np.float64,
        )

    def _value(self, metric: str, levels: Levels, seed: int) -> float:
        return self.results.value(levels, seed, metric)

    def _parts(self, contrast: Contrast) -> Parts:
        metrics = contrast.metrics
        if len(metrics) > 1:
            return own_parts(self._per_seed(contrast))
        (metric,) = metrics
        weights_C = np.zeros(len(self.results.records))
        for _, levels, weight in contrast.weights:
            weights_C[self._place[levels]] += weight
        places = [self.results.seeds.index(seed) for seed in contrast.seeds]
        return self.model(metric).parts(weights_C, places)

    @cached_property
    def _place(self) -> dict[Levels, int]:
        return {levels: i for i, levels in enumerate(self.results.records)}

    def model(self, metric: str) -> SeedModel:
        """The spread of a metric over all configurations that have it."""
        if metric not in self._models:
            values_CS = np.array(
                [
                    [self.results.value(levels, seed, metric) for seed in self.results.seeds]
                    for levels in self.results.records
                ]
            ).reshape(len(self.results.records), len(self.results.seeds))
            self._models[metric] = SeedModel(
                values_CS,
                paths=self._paths,
                replicated_C=[self.results.replicated(levels) for levels in self.results.records],
                floor=self.results.resolution(metric) ** 2 / 12,
            )
        return self._models[metric]

    @cached_property
    def _paths(self) -> list[tuple[int, ...]]:
        """Places in the tree of runs, read at the first seed that all configurations finished."""
        records = self.results.records
        for seed in self.results.seeds:
            if all(seed in by_seed and by_seed[seed].status == "ok" for by_seed in records.values()):
                return tree([[by_seed[seed].data] for by_seed in records.values()])
        return tree([[by_seed[min(by_seed)].data] if by_seed else [] for by_seed in records.values()])

    def _varies(self, contrast: Contrast) -> bool:
        """Whether any configuration of the metric moves with its seed, or was sampled."""
        return any(self.results.sampled(metric) or self.model(metric).moves for metric in contrast.metrics)

    def _maximum(self, family: str) -> MaxT:
        """The largest t of a family: Dunnett's where its contrasts share one control, else a bound."""
        if family not in self._maxima:
            members = list(self._families[family].values())
            self._maxima[family] = MaxT(self._loadings(members), sides=self._sides[family])
        return self._maxima[family]

    def _loadings(self, members: Sequence[Contrast]) -> list[float]:
        """sqrt of the control's share in each contrast's variance; 0 where there is no common control."""
        tested = [c for c in members if len(c.seeds) >= MIN_SEEDS]
        count = max(1, len(tested))
        pairs = [c for c in tested if len(c.weights) == 2 and len(c.metrics) == 1]
        if len(pairs) < len(tested) or len({m for c in pairs for m in c.metrics}) != 1:
            return [0.0] * count
        common = (
            set.intersection(*({levels for _, levels, _ in c.weights} for c in pairs)) if pairs else set()
        )
        if len(common) != 1:
            return [0.0] * count
        (control,) = common
        (metric,) = {m for c in pairs for m in c.metrics}
        model = self.model(metric)
        if len(model.levels) != 1:
            # Arms that share runs are not independent given the control.
            return [0.0] * count
        spread_C = model.leaf_variances
        v0 = spread_C[self._place[control]]
        loadings = []
        for c in pairs:
            (other,) = {levels for _, levels, _ in c.weights} - {control}
            total = v0 + spread_C[self._place[other]]
            loadings.append((v0 / total) ** 0.5 if total > 0 else 0.5**0.5)
        return loadings

    # Fixed checkpoints

    def _of_documents(
        self, contrast: Contrast, families: Sequence[str], mean: float, reason: str
    ) -> Comparison:
        """The contrast over the documents of these checkpoints, in one bootstrap with its family's others."""
        own = self._documents(contrast)
        nothing = Comparison(
            test="none", about="nothing", difference=mean, num_seeds=len(contrast.seeds), reason=reason
        )
        if own is None:
            return replace(nothing, reason=f"{reason}; no items were kept")
        n = int((~np.isnan(own)).sum())
        if n < MIN_ITEMS:
            text = f"{reason}; only {n} items in common, {MIN_ITEMS} are needed to test them"
            return replace(nothing, num_items=n, reason=text)
        found = []
        for name in families or [""]:
            members = self._documents_of(name) if name else {}
            members = members if contrast.key in members else {**members, contrast.key: own}
            place = list(members).index(contrast.key)
            found.append((self._bootstrap(name, members)[place], len(members)))
        (low, high, p, stderr), size = max(found, key=lambda pair: pair[0][1] - pair[0][0])
        return Comparison(
            test="document bootstrap",
            about="checkpoints",
            difference=mean,
            low=low,
            high=high,
            p=p,
            stderr=stderr,
            num_seeds=len(contrast.seeds),
            num_items=n,
            family=size,
            detectable=stderr * noncentrality(n - 1, (high - low) / 2 / stderr, POWER)
            if stderr > 0
            else None,
            reason=reason,
        )

    def _documents(self, contrast: Contrast) -> Array | None:
        """The contrast at each document; NaN where a side did not score it."""
        if len(contrast.metrics) != 1:
            return None
        (metric,) = contrast.metrics
        total: Array | float = 0.0
        for _, levels, weight in contrast.weights:
            items_SD = self.results.items([levels], contrast.seeds, metric)
            if items_SD is None:
                return None
            total = total + weight * items_SD.mean(axis=0)
        return np.asarray(total)

    def _documents_of(self, family: str) -> dict[Key, Array]:
        """The family's contrasts that rest on documents."""
        if family not in self._document_families:
            found = {}
            for contrast in self._families[family].values():
                runs = any(self.results.replicated(v) for _, v, _ in contrast.weights)
                if runs and len(contrast.seeds) >= MIN_SEEDS:
                    continue
                own = self._documents(canonical(contrast))
                if own is not None and (~np.isnan(own)).sum() >= MIN_ITEMS:
                    found[contrast.key] = own
            self._document_families[family] = found
        return self._document_families[family]

    @cached_property
    def _document_families(self) -> dict[str, dict[Key, Array]]:
        return {}

    def _bootstrap(
        self, family: str, members: Mapping[Key, Array]
    ) -> list[tuple[float, float, float, float]]:
        place = (family, tuple(members))
        if place not in self._resampled:
            self._resampled[place] = max_t_bootstrap(list(members.values()), level=LEVEL)
        return self._resampled[place]

    @cached_property
    def _resampled(self) -> dict[tuple[str, tuple[Key, ...]], list[tuple[float, float, float, float]]]:
        return {}


def added(terms: Iterable[tuple[str, Levels, float]]) -> tuple[tuple[str, Levels, float], ...]:
    """Terms of one configuration together, those that cancel left out, sorted."""
    sums: dict[tuple[str, Levels], float] = {}
    for metric, levels, weight in terms:
        sums[metric, levels] = sums.get((metric, levels), 0.0) + weight
    return tuple(sorted((m, v, w) for (m, v), w in sums.items() if abs(w) > 1e-12))


def canonical(contrast: Contrast) -> Contrast:
    """The contrast or its reverse, whichever has a positive first weight."""
    if not contrast.weights or contrast.weights[0][2] > 0:
        return contrast
    return replace(contrast, weights=tuple((m, v, -w) for m, v, w in contrast.weights))


def exact(difference: float, *, num_seeds: int) -> Comparison:
    """Nothing was sampled and no seed moves it: the number is the answer."""
    return Comparison(
        test="exact",
        about="methods",
        difference=difference,
        low=difference,
        high=difference,
        num_seeds=num_seeds,
    )


def too_few(num_seeds: int) -> str:
    return f"{num_seeds} seed{'s' * (num_seeds != 1)} where {MIN_SEEDS} are needed to speak of methods"


def one_run(num_seeds: int) -> str:
    return f"all {num_seeds} seeds rest on the same run, so seeds are no replicates here"
