"""Comparisons over the documents of fixed checkpoints, where runs are too few to speak of methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from harness.report.contrasts import Comparison, Contrast, Key, canonical
from harness.report.documents import Documents, apart, max_t_bootstrap
from harness.report.frames import Results
from harness.report.items import parted
from harness.report.model import ARITHMETIC
from harness.report.numbers import counted
from harness.report.statistics import LEVEL, MIN_ITEMS, MIN_SEEDS, POWER, noncentrality


class Checkpoints:
    """Answers over documents; every family of comparisons is resampled together, once.

    State: `families` is read when an answer is asked for, so that it may still grow before
    """

    def __init__(self, results: Results, families: Mapping[str, Mapping[Key, Contrast]]) -> None:
        self._results, self._families = results, families
        self._by_family: dict[str, dict[Key, Documents]] = {}
        self._resampled: dict[tuple[str, tuple[Key, ...]], list[tuple[float, float, float, float]]] = {}

    def answer(self, contrast: Contrast, families: Sequence[str], mean: float, reason: str) -> Comparison:
        """The contrast over the documents of these checkpoints, in one bootstrap with its family's others."""
        own = self._documents(contrast)
        nothing = Comparison(
            test="none", about="nothing", difference=mean, num_seeds=len(contrast.seeds), reason=reason
        )
        if own is None:
            return replace(nothing, reason=f"{reason}; no items were kept")
        n = int((~np.isnan(own.values)).sum())
        if n < MIN_ITEMS:
            text = f"{reason}; only {counted(n, 'item')} in common, {MIN_ITEMS} are needed to test them"
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

    def _documents(self, contrast: Contrast) -> Documents | None:
        """The contrast at each document, 0 where floats leave more; NaN where a side did not score it.

        None where they were not kept, or where it is of metrics over other documents
        """
        first, *others = (self._results.documents(metric) for metric in sorted(contrast.metrics))
        if any(other != first for other in others):
            return None
        terms = []
        for metric, levels, weight in contrast.weights:
            items_SD = self._results.items([levels], contrast.seeds, metric)
            if items_SD is None:
                return None
            terms.append(weight * items_SD.mean(axis=0))
        total = np.sum(terms, axis=0)
        total[np.abs(total) <= ARITHMETIC * np.nanmax(np.abs(terms), initial=0)] = 0.0
        return Documents(task=parted(min(contrast.metrics))[0], values=total)

    def _documents_of(self, family: str) -> dict[Key, Documents]:
        """The family's contrasts that rest on documents."""
        if family not in self._by_family:
            found = {}
            for contrast in self._families[family].values():
                runs = any(self._results.replicated(v) for _, v, _ in contrast.weights)
                if runs and len(contrast.seeds) >= MIN_SEEDS:
                    continue
                own = self._documents(canonical(contrast))
                if own is not None and (~np.isnan(own.values)).sum() >= MIN_ITEMS:
                    found[contrast.key] = own
            self._by_family[family] = found
        return self._by_family[family]

    def _bootstrap(
        self, family: str, members: Mapping[Key, Documents]
    ) -> list[tuple[float, float, float, float]]:
        place = (family, tuple(members))
        if place not in self._resampled:
            self._resampled[place] = max_t_bootstrap(apart(list(members.values())), level=LEVEL)
        return self._resampled[place]
