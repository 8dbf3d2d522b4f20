"""The model of one metric: blocks are seeds, arms are configurations, nested as they share runs.

Any contrast of configurations gets the variances that its per-seed differences have under this model: each
level of the tree contributes the squared coefficients of its groups times their moderated variances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.report.runs import Path
from harness.report.variances import spread

Array = NDArray[np.float64]
Places = NDArray[np.int64]
ARITHMETIC = 1e-12
"""Share of a metric's largest value below which what is left of it is the arithmetic of floats."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the interval of a contrast is made of.

    Shapes: per_seed_S, the contrast by seed; the others A, the arms that it weighs
    """

    per_seed_S: Array
    squares_A: Array
    """Squared coefficients of the arms."""
    moderated_A: Array
    own_A: Array
    """From an arm's residuals alone."""
    df_A: Array
    siblings_A: Array
    """How many arms, itself among them, the residuals of an arm are taken around the mean of."""
    groups_A: Places
    """The group of each arm in its level, and its level in the model; -1 and -1 of what no model covers."""
    levels_A: Places
    total_df: float

    @property
    def num_seeds(self) -> int:
        return len(self.per_seed_S)

    @property
    def variance(self) -> float:
        """Of one per-seed difference."""
        return float((self.squares_A * self.moderated_A).sum())

    @property
    def df(self) -> float:
        """Satterthwaite's, at most those of all residuals."""
        shares_A = self.squares_A * self.moderated_A
        down = float((shares_A**2 / np.maximum(self.df_A, 1e-9)).sum())
        return min(self.total_df, float(shares_A.sum()) ** 2 / down) if down > 0 else self.total_df


@dataclass(frozen=True, kw_only=True)
class Level:
    """Groups of one level, with the spread of each around its parent's mean. Shapes: G groups"""

    group_C: Places
    """The group of each configuration; -1 where it has no spread."""
    parent_G: Places
    siblings_G: Places
    """How many groups the parent has; one alone has no spread around it."""
    moderated_G: Array
    own_G: Array
    df_G: Array
    total_df: float


def level_of(centred_GS: Array, *, group_C: Places, parent_G: Places, floor: float, noise: float) -> Level:
    """The spread of the groups of one level. Shapes: centred_GS, groups x seeds"""
    siblings_G = np.bincount(parent_G)[parent_G]
    families = [np.flatnonzero(parent_G == p) for p in np.unique(parent_G[siblings_G > 1])]
    moderated_G, own_G, df_G = (np.zeros(len(parent_G)) for _ in range(3))
    found = (
        spread([centred_GS[members] for members in families], floor=floor, noise=noise) if families else []
    )
    for members, s in zip(families, found, strict=True):
        moderated_G[members], own_G[members], df_G[members] = s.moderated, s.own, s.df
    return Level(
        group_C=group_C,
        parent_G=parent_G,
        siblings_G=siblings_G,
        moderated_G=moderated_G,
        own_G=own_G,
        df_G=df_G,
        total_df=found[0].total_df if found else 0.0,
    )


class SeedModel:
    """Variances of a metric's configurations over seeds.

    Shapes: values_CS, configurations x seeds with NaN for what is missing; replicated_C, whether the seeds of
    a configuration are different runs (where not, it has no spread of its own)
    """

    def __init__(
        self, values_CS: Array, *, paths: Sequence[Path], replicated_C: Sequence[bool], floor: float = 0.0
    ) -> None:
        self.values_CS = values_CS
        self.replicated_C = np.asarray(replicated_C, dtype=bool)
        self.floor = floor
        self.levels: list[Level] = []
        self._root_S: Array | None = None
        kept_C = np.flatnonzero(self.replicated_C & (~np.isnan(values_CS)).any(axis=1))
        if len(kept_C):
            self._build(kept_C, [paths[int(i)] for i in kept_C])

    def _build(self, kept_C: Places, paths: Sequence[Path]) -> None:
        """From the leaves up: the spread of groups around their parents', then the parents as groups."""
        depth = len(paths[0])
        numbers = [
            {name: i for i, name in enumerate(dict.fromkeys(p[:d] for p in paths))} for d in range(depth + 1)
        ]
        values_GS = centred(self.values_CS[kept_C])
        noise = ARITHMETIC * float(np.nanmax(np.abs(self.values_CS[kept_C])))
        for d in range(depth, 0, -1):
            group_C = np.full(len(self.values_CS), -1)
            group_C[kept_C] = [numbers[d][path[:d]] for path in paths]
            parent_G = np.array([numbers[d - 1][name[:-1]] for name in numbers[d]])
            level = level_of(values_GS, group_C=group_C, parent_G=parent_G, floor=self.floor, noise=noise)
            self.levels.append(level)
            values_GS = means(values_GS, parent_G)
        self._root_S = values_GS[0]

    @property
    def moves(self) -> bool:
        """Whether any configuration's value changes with its seed."""
        kept_CS = self.values_CS[(~np.isnan(self.values_CS)).any(axis=1)]
        scale = float(np.nanmax(np.abs(kept_CS))) if kept_CS.size else 0.0
        spread_C = np.nanmax(kept_CS, axis=1) - np.nanmin(kept_CS, axis=1) if kept_CS.size else np.zeros(0)
        return bool((spread_C > 1e-9 * max(scale, 1e-300)).any())

    @property
    def leaf_variances(self) -> Array:
        """The moderated variance of each configuration inside its group; 0 where it has none."""
        found_C = np.zeros(len(self.values_CS))
        if self.levels:
            inside = self.levels[0].group_C >= 0
            found_C[inside] = self.levels[0].moderated_G[self.levels[0].group_C[inside]]
        return found_C

    def parts(self, weights_C: Array, seeds: Sequence[int]) -> Parts:
        """A contrast (weights add up to 0) over the seeds at these places."""
        values_CS = self.values_CS[:, list(seeds)]
        used = weights_C != 0
        per_seed_S = summed(list(weights_C[used, None] * values_CS[used]))
        own_weights_C = np.where(self.replicated_C, weights_C, 0.0)
        rows: list[Array] = []
        total_df = root = 0.0
        for place, level in enumerate(self.levels):
            inside_C = level.group_C >= 0
            a_G = np.bincount(
                level.group_C[inside_C], weights=own_weights_C[inside_C], minlength=len(level.parent_G)
            )
            a_P = np.bincount(level.parent_G, weights=a_G)
            b_G = np.where(level.siblings_G > 1, a_G - a_P[level.parent_G] / level.siblings_G, 0.0)
            t = np.abs(b_G) > 1e-12
            of_G = np.stack([level.moderated_G, level.own_G, level.df_G, level.siblings_G, np.arange(len(t))])
            rows.append(np.vstack([b_G[t] ** 2, of_G[:, t], np.full(int(t.sum()), place)]))
            total_df += level.total_df * bool(t.any())
            root = float(a_P[0])  # the last level is the first below the root
        if abs(root) > 1e-12 and self._root_S is not None:
            # Against an arm that no seed moves, the luck of the whole block counts too.
            root_S = self._root_S[~np.isnan(self._root_S)]
            variance, df = max(float(root_S.var(ddof=1)), self.floor), float(len(root_S) - 1)
            rows.append(np.array([[root**2], [variance], [variance], [df], [1], [0], [len(self.levels)]]))
            total_df += df
        squares_A, moderated_A, own_A, df_A, siblings_A, *places = np.concatenate(
            [np.zeros((7, 0)), *rows], axis=1
        )
        groups_A, levels_A = (place_A.astype(np.int64) for place_A in places)
        return Parts(
            per_seed_S=per_seed_S,
            squares_A=squares_A,
            moderated_A=moderated_A,
            own_A=own_A,
            df_A=df_A,
            siblings_A=siblings_A,
            groups_A=groups_A,
            levels_A=levels_A,
            total_df=total_df,
        )

    def together(self, parts: Parts, counts_C: Places) -> Places:
        """How many contrasts of a family weigh each arm of one, given how many weigh each configuration."""
        counts = [
            np.bincount(level.group_C[level.group_C >= 0], weights=counts_C[level.group_C >= 0])
            for level in self.levels
        ]
        counts.append(np.array([counts_C.max(initial=1)]))
        found = [counts[level][group] for level, group in zip(parts.levels_A, parts.groups_A, strict=True)]
        return np.maximum(np.array(found, dtype=np.int64), 1)


def summed(terms: Sequence[Array]) -> Array:
    """A contrast by seed, of what each configuration adds to it; what floats alone leave of it is no spread.

    Shapes: terms S each
    """
    total_S = np.sum(terms, axis=0)
    noise = ARITHMETIC * float(np.abs(terms).max())
    if np.ptp(total_S) <= noise:
        mean = float(total_S.mean())
        total_S = np.full_like(total_S, mean if abs(mean) > noise else 0.0)
    return np.asarray(total_S)


def centred(values_KS: Array) -> Array:
    """Each row without its mean; NaN stays."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(values_KS - np.nanmean(values_KS, axis=1, keepdims=True))


def means(values_GS: Array, parent_G: Places) -> Array:
    """Mean of the groups of each parent, by seed, over those that have it."""
    there_GS = ~np.isnan(values_GS)
    sums_PS = np.zeros((int(parent_G.max()) + 1, values_GS.shape[1]))
    counts_PS = np.zeros_like(sums_PS)
    np.add.at(sums_PS, parent_G, np.where(there_GS, values_GS, 0.0))
    np.add.at(counts_PS, parent_G, there_GS.astype(np.float64))
    return np.where(counts_PS > 0, sums_PS / np.maximum(counts_PS, 1), np.nan)


def own_parts(per_seed_S: Array, *, floor: float = 0.0) -> Parts:
    """A difference that no model covers (of two metrics): its own variance, nothing pooled.

    `floor` is the variance that rounding to whole items alone gives it
    """
    n = len(per_seed_S)
    variance = max(float(per_seed_S.var(ddof=1)) if n > 1 else 0.0, floor)
    one = [np.array([v]) for v in (1.0, variance, variance, float(n - 1))]
    return Parts(
        per_seed_S=per_seed_S,
        squares_A=one[0],
        moderated_A=one[1],
        own_A=one[2],
        df_A=one[3],
        siblings_A=np.ones(1),
        groups_A=np.array([-1]),
        levels_A=np.array([-1]),
        total_df=float(n - 1),
    )
