"""A scaling law fitted to a sweep: the loss as a function of model size and text, with intervals, tried on a
configuration that the fit has not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.errors import DataError
from harness.report.frames import Levels, Results
from harness.report.record import label
from harness.report.statistics import Array, t_quantile

TITLE = "Scaling law"
HUBER = 1e-3
"""Residual of the log loss above which it counts linearly, as in the source."""
STARTS = (0.1, 0.3, 0.6, 1.0)
"""Exponents that a fit starts from, each pair of them."""
FLOORS = (0.02, 0.3, 1.0)
"""Distances of the first E below the least loss, in its log."""
RESAMPLES, LEVEL, MAX_EXPONENT = 200, 0.95, 3.0
MIN_SIZES = 3
"""Model sizes, and amounts of text, below which two of the five numbers are not determined."""


@dataclass(frozen=True, kw_only=True)
class Law:
    """L(N, D) = E + A / N^alpha + B / D^beta.

    Paper: Hoffmann et al. 2022, arXiv:2203.15556, equation 2
    """

    E: float
    A: float
    B: float
    alpha: float
    beta: float

    def predict(self, size: Array, data: Array) -> Array:
        """The loss of models of these sizes after so much text."""
        return self.E + self.A * size**-self.alpha + self.B * data**-self.beta

    @property
    def size_exponent(self) -> float:
        """The compute-optimal size grows with compute to this power (equation 4)."""
        return self.beta / (self.alpha + self.beta)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A configuration that the fit has not seen."""

    levels: Levels
    predicted: float
    low: float
    high: float
    measured: float
    measured_half: float
    """Half the 95 % interval over its seeds; NaN with one seed."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A law with its intervals and what it foretold."""

    law: Law
    intervals: Mapping[str, tuple[float, float]]
    error: float
    """Root mean square of the relative residuals of the runs that were fitted."""
    num_runs: int
    held_out: Sequence[Prediction]
    loss: str
    size: str
    data: str


def fit(
    size_R: Array, data_R: Array, loss_R: Array, *, start: Law | None = None, delta: float = HUBER
) -> Law:
    """The law with the least Huber loss between logs, by L-BFGS from a grid of starts.

    Paper: Hoffmann et al. 2022, arXiv:2203.15556, section D.2
    Raises: DataError with fewer than three sizes or amounts of text, or a loss that is not positive
    """
    for what, values in (("model sizes", size_R), ("amounts of text", data_R)):
        if len(np.unique(values)) < MIN_SIZES:
            raise DataError(f"a scaling law needs at least {MIN_SIZES} {what}, not {len(np.unique(values))}")
    if not (loss_R > 0).all():
        raise DataError("a scaling law needs positive losses; name one in scaling.loss")
    from scipy.optimize import minimize

    # Around their middle, exponents and factors hardly move each other.
    size_mid, data_mid = np.log(size_R).mean(), np.log(data_R).mean()
    n_R, d_R, target_R = np.log(size_R) - size_mid, np.log(data_R) - data_mid, np.log(loss_R)

    def objective(theta: Array) -> tuple[float, Array]:
        a, b, e, alpha, beta = theta
        terms_3R = np.stack([a - alpha * n_R, b - beta * d_R, np.full_like(n_R, e)])
        log_R = np.logaddexp.reduce(terms_3R, axis=0)
        share_3R = np.exp(terms_3R - log_R)
        residual_R = log_R - target_R
        slope_R = np.clip(residual_R, -delta, delta)
        value = np.where(
            np.abs(residual_R) <= delta, 0.5 * residual_R**2, delta * (np.abs(residual_R) - 0.5 * delta)
        ).sum()
        rows = [share_3R[0], share_3R[1], share_3R[2], -share_3R[0] * n_R, -share_3R[1] * d_R]
        # In units in which a typical residual is of order one.
        return float(value / delta**2), np.array([(slope_R * row).sum() for row in rows]) / delta**2

    least = target_R.min()
    if start is None:
        starts = [
            np.array([least - 1, least - 1, least - below, alpha, beta])
            for alpha in STARTS
            for beta in STARTS
            for below in FLOORS
        ]
    else:
        factors = np.log([start.A, start.B, start.E]) - [start.alpha * size_mid, start.beta * data_mid, 0]
        starts = [np.array([*factors, start.alpha, start.beta])]
    bounds = [(None, None)] * 3 + [(0.0, MAX_EXPONENT)] * 2
    options = {"maxiter": 2000, "maxfun": 4000, "ftol": 1e-13, "gtol": 1e-9}
    found = [
        minimize(objective, s, jac=True, method="L-BFGS-B", bounds=bounds, options=options) for s in starts
    ]
    a, b, e, alpha, beta = min(found, key=lambda one: one.fun).x
    return Law(
        E=float(np.exp(e)),
        A=float(np.exp(a + alpha * size_mid)),
        B=float(np.exp(b + beta * data_mid)),
        alpha=float(alpha),
        beta=float(beta),
    )


def resampled(size_R: Array, data_R: Array, loss_R: Array, law: Law, *, group_R: Array) -> list[Law]:
    """Laws of bootstrap samples: runs are drawn again within each group, the runs of one configuration."""
    rng = np.random.default_rng(0)
    groups = [np.flatnonzero(group_R == g) for g in np.unique(group_R)]
    laws = []
    for _ in range(RESAMPLES):
        rows = np.concatenate([rng.choice(members, size=len(members)) for members in groups])
        laws.append(fit(size_R[rows], data_R[rows], loss_R[rows], start=law))
    return laws


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The middle 95 % of resampled values."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def scaling(results: Results, wanted: Mapping[str, Any]) -> Fitted:
    """The law of a sweep, as a layout's `scaling` asks for it.

    Raises: DataError where too little was run
    """
    loss, size, data = (results.resolve(str(wanted[key])) for key in ("loss", "size", "data"))
    held = {factor: label(level) for factor, level in wanted.get("held_out", {}).items()}
    unseen = set(results.configurations(held)) if held else set()
    rows: list[tuple[float, float, float, int]] = []
    for place, levels in enumerate(results.records):
        if levels not in unseen:
            rows += [(*run, place) for run in runs(results, levels, (size, data, loss))]
    size_R, data_R, loss_R, group_R = np.array(rows).reshape(-1, 4).T
    law = fit(size_R, data_R, loss_R)
    laws = resampled(size_R, data_R, loss_R, law, group_R=group_R)
    names = ("E", "A", "B", "alpha", "beta", "size_exponent")
    return Fitted(
        law=law,
        intervals={name: interval([getattr(one, name) for one in laws]) for name in names},
        error=float(np.sqrt(np.mean((law.predict(size_R, data_R) / loss_R - 1) ** 2))),
        num_runs=len(rows),
        held_out=[
            prediction(results, levels, law, laws, (size, data, loss))
            for levels in results.records
            if levels in unseen and runs(results, levels, (size, data, loss))
        ],
        loss=loss,
        size=size,
        data=data,
    )


def runs(results: Results, levels: Levels, names: Sequence[str]) -> list[tuple[float, float, float]]:
    """(size, data, loss) of each finished run of a configuration."""
    found = [tuple(results.value(levels, seed, name) for name in names) for seed in results.seeds]
    return [(a, b, c) for a, b, c in found if np.isfinite([a, b, c]).all()]


def prediction(
    results: Results, levels: Levels, law: Law, laws: Sequence[Law], names: Sequence[str]
) -> Prediction:
    """What a law says of a configuration, beside what it measured."""
    size_R, data_R, loss_R = (np.array(column) for column in zip(*runs(results, levels, names), strict=True))
    low, high = interval([float(one.predict(size_R, data_R).mean()) for one in laws])
    spread = loss_R.std(ddof=1) / len(loss_R) ** 0.5 if len(loss_R) > 1 else float("nan")
    return Prediction(
        levels=levels,
        predicted=float(law.predict(size_R, data_R).mean()),
        low=low,
        high=high,
        measured=float(loss_R.mean()),
        measured_half=float(spread * t_quantile(max(len(loss_R) - 1, 1))),
    )


def spread_text(half: float) -> str:
    """Half an interval; nothing of one run, which has none."""
    return "" if np.isnan(half) else f" ±{half:.3f}"


def as_text(found: Fitted, results: Results) -> tuple[list[str], list[list[str]], list[str]]:
    """Heads, rows and notes of the law and its predictions."""
    shown = {
        "E": "E, what no size and no text takes away",
        "A": "A",
        "alpha": "alpha, exponent of size",
        "B": "B",
        "beta": "beta, exponent of text",
        "size_exponent": "exponent of compute in the best size, beta / (alpha + beta)",
    }
    rows = [
        [what, f"{getattr(found.law, name):.3g}", "{:.3g} to {:.3g}".format(*found.intervals[name]), ""]
        for name, what in shown.items()
    ]
    rows += [
        [
            f"foretold: {results.name_of(p.levels)}",
            f"{p.predicted:.3f}",
            f"{p.low:.3f} to {p.high:.3f}",
            f"{p.measured:.3f}{spread_text(p.measured_half)} ({p.predicted / p.measured - 1:+.1%})",
        ]
        for p in found.held_out
    ]
    notes = [
        f"L(N, D) = E + A / N^alpha + B / D^beta (arXiv:2203.15556, equation 2) with L = {found.loss}, "
        f"N = {found.size}, D = {found.data}; fitted to {found.num_runs} runs by the least Huber loss of "
        f"logs; relative residuals have a root mean square of {found.error:.1%}.",
        f"Intervals: the middle 95 % of {RESAMPLES} fits to runs drawn again within each configuration; they "
        "know nothing of what the form of the law leaves out.",
    ]
    if found.held_out:
        notes.append(
            "Foretold configurations had no part in the fit; measured: mean over seeds, 95 % interval."
        )
    return ["number", "value", "95 % interval", "measured"], rows, notes
