"""One computation behind every mark, interval, claim and colour: simultaneous comparisons over seeds.

A comparison is a contrast of configurations. Comparisons that are asked together are a family, whose
intervals all cover with 95 %; a contrast that stands in the table and in a claim has one interval, the wider.
Methods are compared over seeds (blocks) with variances pooled over configurations; where seeds are fewer than
three or are one run, the documents of these checkpoints are resampled instead, and nothing is said about
methods.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from harness.report.checkpoints import Checkpoints
from harness.report.contrasts import (
    Comparison,
    Contrast,
    Diverged,
    Key,
    added,
    canonical,
    exact,
    one_run,
    too_few,
)
from harness.report.frames import Levels, Results
from harness.report.intervals import interval
from harness.report.model import Array, Parts, Places, SeedModel, own_parts, summed
from harness.report.runs import tree
from harness.report.simultaneous import MaxT
from harness.report.statistics import MIN_SEEDS, POWER, noncentrality, same

Selection = Mapping[str, str]


class Decisions:
    """All comparisons of one report: families are declared first, then every contrast has one answer."""

    def __init__(self, results: Results) -> None:
        self.results = results
        self._families: dict[str, dict[Key, Contrast]] = {}
        self._answers: dict[tuple[Key, tuple[str, ...]], Comparison] = {}
        self._models: dict[str, SeedModel] = {}
        self._maxima: dict[str, MaxT] = {}
        self._sides: dict[str, int] = {}
        self._counts: dict[tuple[str, str], Places] = {}
        self._checkpoints = Checkpoints(results, self._families)

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

    def _diverged(self, contrast: Contrast) -> tuple[Diverged, Diverged]:
        """How many runs of either side ended without a model."""
        both = [*((levels, weight) for _, levels, weight in contrast.weights), *contrast.dropped]
        added = {levels for levels, weight in both if weight > 0}
        taken = {levels for levels, weight in both if weight < 0}
        return self._diverged_of(added), self._diverged_of(taken)

    def _diverged_of(self, side: Collection[Levels]) -> Diverged:
        count = sum(len(self.results.diverged(levels)) for levels in side)
        return Diverged(count, max(1, len(side) * len(self.results.seeds)))

    def _answer(self, contrast: Contrast, families: Sequence[str]) -> Comparison:
        seeds = contrast.seeds
        per_seed_S = self._per_seed(contrast)
        mean = float(per_seed_S.mean())
        if not any(self.results.replicated(v) for _, v, _ in contrast.weights):
            if not any(self.results.sampled(m) for m, _, _ in contrast.weights):
                return exact(mean, num_seeds=len(seeds))
            same_run = self._checkpoints.answer(contrast, families, mean, one_run(len(seeds)))
            return replace(same_run, drawn=False)
        if len(seeds) < MIN_SEEDS:
            return self._checkpoints.answer(contrast, families, mean, too_few(len(seeds)))
        if same(per_seed_S) and not self._varies(contrast):
            # Sizes and counts: no seed moves them, whoever draws it.
            return exact(mean, num_seeds=len(seeds))
        parts = self._parts(contrast)
        found = [
            (interval(parts, self._maximum(name), together_A=self._together(parts, name, contrast)), name)
            for name in families
        ] or [(interval(parts, MaxT([0.0])), "")]
        widest, family = max(found, key=lambda pair: pair[0].half)
        if widest.half == 0:
            # Sampled once for all seeds: no interval over seeds says anything beyond the number.
            return exact(mean, num_seeds=len(seeds))
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
            family=self._maximum(family).size if family else 1,
            detectable=stderr * noncentrality(parts.df, critical, POWER) if stderr > 0 else None,
        )

    def _most(self, contrast: Contrast) -> float:
        """The largest difference that can be: that of all and none, between shares."""
        if all(self.results.is_share(metric) for metric in contrast.metrics):
            return sum(weight for _, _, weight in contrast.weights if weight > 0)
        return float("inf")

    def _per_seed(self, contrast: Contrast) -> Array:
        at = self.results.at
        if not contrast.weights:  # a configuration against itself
            return np.zeros(len(contrast.seeds))
        return summed([weight * at(levels, contrast.seeds, m) for m, levels, weight in contrast.weights])

    def _parts(self, contrast: Contrast) -> Parts:
        metrics = contrast.metrics
        if len(metrics) > 1:
            steps = [weight * self.results.resolution(metric) for metric, _, weight in contrast.weights]
            return own_parts(self._per_seed(contrast), floor=sum(step**2 for step in steps) / 12)
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
            seeds = self.results.seeds
            values_CS = np.array(
                [self.results.at(levels, seeds, metric) for levels in self.results.records]
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

    def _together(self, parts: Parts, family: str, contrast: Contrast) -> Places | None:
        """How many contrasts of a family weigh each arm of this one; None where no model covers it."""
        if len(contrast.metrics) > 1:
            return None
        (metric,) = contrast.metrics
        if (family, metric) not in self._counts:
            counts_C = np.zeros(len(self.results.records), dtype=np.int64)
            for c in self._families[family].values():
                if c.metrics == {metric} and len(c.seeds) >= MIN_SEEDS:
                    counts_C[[self._place[levels] for _, levels, _ in c.weights]] += 1
            self._counts[family, metric] = counts_C
        return self.model(metric).together(parts, self._counts[family, metric])

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
