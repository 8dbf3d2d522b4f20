"""Ratings from duels: Bradley-Terry strengths on Elo's scale, with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.report.frames import Results
from harness.report.opponents import against_itself, opponent
from harness.report.statistics import MIN_SEEDS, t_quantile

TITLE = "Ratings from duels"
ELO = 400 / math.log(10)
"""Elo points per unit of log odds."""
REFERENCE = "reference"
"""Who is fought where samples name no opponent: the win rate's own baseline."""


@dataclass(frozen=True, kw_only=True)
class Duels:
    """Fights of one pair: `score` of `n` points went to the first (draws count half)."""

    first: str
    second: str
    score: float
    n: int


@dataclass(frozen=True, kw_only=True)
class Rating:
    """A strength against the anchor, which is 0."""

    name: str
    elo: float
    low: float
    high: float
    basis: str
    """`seeds` or `items`."""
    against: str = ""
    """The opponent, as the evaluator's options name it."""


def bradley_terry(duels: Sequence[Duels], *, anchor: str) -> dict[str, tuple[float, float]]:
    """Name -> (Elo, its standard error) against the anchor, by maximum likelihood over all duels.

    Whom no chain of duels links to the anchor has no strength against it, and is left out.
    Paper: Bradley and Terry 1952, doi:10.1093/biomet/39.3-4.324
    Differs: half a win and half a loss is added to each pair, so that a shut-out has a finite strength
    """
    duels = _linked(duels, anchor)
    if not duels:
        return {anchor: (0.0, 0.0)}
    if len(duels) == 1:
        (d,) = duels
        won, lost = d.score + 0.5, d.n - d.score + 0.5
        sign = 1.0 if d.second == anchor else -1.0
        rated = d.first if d.second == anchor else d.second
        return {
            anchor: (0.0, 0.0),
            rated: (sign * math.log(won / lost) * ELO, (1 / won + 1 / lost) ** 0.5 * ELO),
        }
    import statsmodels.api as sm

    names = sorted({d.first for d in duels} | {d.second for d in duels})
    others = [name for name in names if name != anchor]
    design = np.zeros((len(duels), len(others)))
    for row, d in enumerate(duels):
        for name, sign in ((d.first, 1.0), (d.second, -1.0)):
            if name != anchor:
                design[row, others.index(name)] += sign
    points = np.array([[d.score + 0.5, d.n - d.score + 0.5] for d in duels])
    fit = sm.GLM(points, design, family=sm.families.Binomial()).fit()
    ratings = {
        name: (float(b) * ELO, float(e) * ELO) for name, b, e in zip(others, fit.params, fit.bse, strict=True)
    }
    return {anchor: (0.0, 0.0), **ratings}


def _linked(duels: Sequence[Duels], anchor: str) -> list[Duels]:
    """The duels of those whom a chain of them links to the anchor."""
    linked = {anchor}
    while reached := {n for d in duels for n in (d.first, d.second) if {d.first, d.second} & linked} - linked:
        linked |= reached
    return [d for d in duels if d.first in linked]


def ratings(results: Results, sample_name: str, column: str = "win_rate") -> list[Rating]:
    """A rating for each configuration from the samples of a win rate, best first.

    The interval is over seeds where there are three, else over the items of these checkpoints.
    """
    found = []
    for levels, by_seed in results.records.items():
        per_seed, opponents = [], set()
        for record in by_seed.values():
            judged = record.status == "ok" and not against_itself(record, sample_name)
            items = record.samples(sample_name) if judged else None
            if items is not None and items.measures(column) and len(items):
                won = items.numbers(column)
                score, n = float(np.nansum(won)), int(np.isfinite(won).sum())
                duel = Duels(first=results.name_of(levels), second=REFERENCE, score=score, n=n)
                per_seed.append(duel)
                opponents.add(opponent(record, sample_name))
        if per_seed:
            against = ", ".join(sorted(opponents))
            found.append(replace(rating(results.name_of(levels), per_seed), against=against))
    return sorted(found, key=lambda r: -r.elo)


def win_rate_samples(results: Results) -> str:
    """Name of the samples that hold verdicts of duels; empty where nothing was judged."""
    return next((m.rpartition(".")[0] for m in results.metrics if m.endswith(".win_rate")), "")


def as_text(found: Sequence[Rating]) -> tuple[list[str], list[list[str]], list[str]] | None:
    """Heads, rows (best first) and notes; None with fewer than two rated configurations."""
    if len(found) < 2:
        return None
    rows = [[r.name, f"{r.elo:+.0f}", f"{r.low:.0f} to {r.high:.0f}", r.basis] for r in found]
    heads = ["configuration", "Elo", "95 % interval", "over"]
    if several_opponents(found):
        rows = [[*row, r.against] for row, r in zip(rows, found, strict=True)]
        note = (
            "Bradley-Terry strengths on Elo's scale, each against the opponent that it met, which stands at "
            "0: 400 points are odds of ten to one. Nothing links the opponents, so that only configurations "
            "with the same one can be compared. Half a win and half a loss is added, so that a shut-out has "
            "a finite rating."
        )
        return [*heads, "against"], rows, [note]
    note = (
        "Bradley-Terry strengths on Elo's scale against the opponent of the win rate, which stands at 0: 400 "
        "points are odds of ten to one. Every configuration met that opponent alone, so that two of them are "
        "compared through it. Half a win and half a loss is added, so that a shut-out has a finite rating."
    )
    return heads, rows, [note]


def several_opponents(found: Sequence[Rating]) -> bool:
    """Whether not all met the same opponent, so that they do not stand on one scale."""
    return len({r.against for r in found}) > 1


def rating(name: str, per_seed: Sequence[Duels]) -> Rating:
    """One configuration's rating from its duels of each seed."""
    single = [bradley_terry([d], anchor=REFERENCE)[name] for d in per_seed]
    elos = np.array([elo for elo, _ in single])
    if len(elos) >= MIN_SEEDS and np.ptp(elos) > 0:
        half = t_quantile(len(elos) - 1) * float(elos.std(ddof=1)) / len(elos) ** 0.5
        basis = "seeds"
    else:
        half, basis = t_quantile(1e9) * float(np.mean([e for _, e in single])), "items"
    middle = float(elos.mean())
    return Rating(name=name, elo=middle, low=middle - half, high=middle + half, basis=basis)
