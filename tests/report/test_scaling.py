"""The scaling law: planted laws are found again, as scipy's own least squares finds them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simulate
from scipy.optimize import curve_fit

from harness.errors import ConfigError, DataError
from harness.report.commands import report
from harness.report.scaling import RESAMPLES, Law, fit, interval, resampled

CHINCHILLA = Law(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)
"""Equation 10 of arXiv:2203.15556."""
GRID = np.array(list(itertools.product(np.geomspace(1e7, 1e10, 5), np.geomspace(1e9, 1e12, 5))))
SIZE, DATA = GRID.T


def noisy(scale: float, repeats: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    size, data = np.repeat(SIZE, repeats), np.repeat(DATA, repeats)
    loss = CHINCHILLA.predict(size, data) * np.exp(rng.normal(0, scale, len(size)))
    return size, data, loss, np.repeat(np.arange(len(SIZE)), repeats)


def test_chinchillas_own_law_is_found_from_its_predictions() -> None:
    law = fit(SIZE, DATA, CHINCHILLA.predict(SIZE, DATA))
    for name in ("E", "A", "B", "alpha", "beta"):
        assert getattr(law, name) == pytest.approx(getattr(CHINCHILLA, name), rel=2e-3), name


def test_the_best_sizes_exponent_is_equation_4() -> None:
    """Minimise L over N at C = 6 N D by hand: the optimum grows as C^(beta / (alpha + beta))."""
    best = []
    for compute in (1e21, 1e22):
        sizes = np.geomspace(1e8, 1e12, 200_001)
        best.append(sizes[CHINCHILLA.predict(sizes, compute / 6 / sizes).argmin()])
    assert np.log10(best[1] / best[0]) == pytest.approx(CHINCHILLA.size_exponent, abs=1e-3)


def test_small_noise_gives_what_scipys_least_squares_gives() -> None:
    """Within delta the Huber loss is quadratic, so both minimise the same sum."""
    size, data, loss, _ = noisy(0.005, 2)

    def log_law(x: np.ndarray, e: float, a: float, b: float, alpha: float, beta: float) -> np.ndarray:
        return np.log(np.exp(e) + np.exp(a - alpha * np.log(x[0])) + np.exp(b - beta * np.log(x[1])))

    start = [np.log(1.5), np.log(300), np.log(300), 0.3, 0.3]
    found, _ = curve_fit(log_law, np.stack([size, data]), np.log(loss), p0=start, maxfev=20_000)
    law = fit(size, data, loss, delta=1.0)
    assert [np.log(law.E), law.alpha, law.beta] == pytest.approx([found[0], found[3], found[4]], rel=1e-3)
    ours, theirs = law.predict(size, data), np.exp(log_law(np.stack([size, data]), *found))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_a_few_wild_runs_move_the_huber_fit_less_than_least_squares() -> None:
    size, data, loss, _ = noisy(0.001, 2)
    loss[::10] *= 1.3
    truth = CHINCHILLA.predict(SIZE, DATA)
    errors = [
        np.abs(fit(size, data, loss, delta=d).predict(SIZE, DATA) / truth - 1).max() for d in (1e-3, 1.0)
    ]
    assert errors[0] < 0.01 < errors[1]


def test_intervals_of_predictions_cover_the_truth_about_as_often_as_they_say() -> None:
    covered = []
    for seed in range(6):
        size, data, loss, group = noisy(0.01, 3, seed)
        law = fit(size, data, loss)
        laws = resampled(size, data, loss, law, group_R=group)
        assert len(laws) == RESAMPLES
        middle = (np.array([3e8]), np.array([3e10]))
        low, high = interval([float(one.predict(*middle)[0]) for one in laws])
        covered.append(low <= CHINCHILLA.predict(*middle)[0] <= high)
    assert sum(covered) >= 4


@pytest.mark.parametrize(
    ("size", "data", "loss", "reason"),
    [
        (SIZE * 0 + 1e8, DATA, SIZE * 0 + 2.0, "at least 3 model sizes, not 1"),
        (SIZE, DATA * 0 + 1e9, SIZE * 0 + 2.0, "at least 3 amounts of text, not 1"),
        (SIZE, DATA, SIZE * 0, "positive losses"),
    ],
)
def test_what_cannot_be_fitted_is_refused(
    size: np.ndarray, data: np.ndarray, loss: np.ndarray, reason: str
) -> None:
    with pytest.raises(DataError, match=reason):
        fit(size, data, loss)


EXACT = Law(E=1.0, A=40.0, B=60.0, alpha=0.5, beta=0.4)
WANTED = {"loss": "bits_per_byte", "size": "pretrain.parameters", "data": "pretrain.bytes"}


def store(root: Path, *, texts: tuple[str, ...]) -> Path:
    """A sweep of four sizes whose losses follow a law but for a little noise."""
    sizes = {"10 k": 1e4, "30 k": 3e4, "90 k": 9e4, "270 k": 27e4}
    factors: Any = {
        "size": {label: {"model.dim": int(size)} for label, size in sizes.items()},
        "text": {text: {"pretrain.budget.amount": float(text)} for text in texts},
    }
    rng = np.random.default_rng(0)
    for size, text, seed in itertools.product(sizes, texts, (0, 1, 2)):
        levels = {"size": size, "text": text}
        record = simulate.record_of(name="law", factors=factors, levels=levels, seed=seed, seeds=(0, 1, 2))
        facts = record["facts"]["pretrain"]
        facts |= {"parameters": sizes[size], "bytes": float(text)}
        loss = float(EXACT.predict(np.array([sizes[size]]), np.array([float(text)]))[0])
        loss *= 1 + rng.normal(0, 1e-4)
        metric = simulate.metric("perplexity", "perplexity", "bits_per_byte", loss, higher_is_better=False)
        record["metrics"].append(metric)
        simulate.write(root, record)
    return root


def test_a_report_foretells_the_size_that_was_held_out(tmp_path: Path) -> None:
    table = tmp_path / "law.yaml"
    table.write_text("scaling: " + repr({**WANTED, "held_out": {"size": "270 k"}}).replace("'", '"'))
    texts = ("1e5", "2e5", "4e5")
    out = report(
        "law", store=store(tmp_path, texts=texts), table=str(table), out=tmp_path / "out", quiet=True
    )
    page = (out / "README.md").read_text()
    rows = {
        line.split("|")[1].strip(): line.split("|")[2:] for line in page.splitlines() if "| foretold" in line
    }
    assert len(rows) == 3
    for text in texts:
        exact = float(EXACT.predict(np.array([27e4]), np.array([float(text)]))[0])
        assert float(rows[f"foretold: 270 k · {text}"][0]) == pytest.approx(exact, rel=2e-3)
    assert (out / "figures" / "scaling_law.svg").exists()
    assert "Scaling law" in (out / "index.html").read_text()


def test_a_sweep_too_small_for_a_law_says_so_in_its_notes(tmp_path: Path) -> None:
    table = tmp_path / "law.yaml"
    table.write_text("scaling: " + repr(WANTED).replace("'", '"'))
    small = store(tmp_path, texts=("1e5", "2e5"))
    out = report("law", store=small, table=str(table), out=tmp_path / "out", quiet=True)
    assert "No scaling law: a scaling law needs at least 3 amounts of text" in (out / "README.md").read_text()


def test_a_key_that_no_law_has_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "law.yaml"
    table.write_text("scaling: {loss: bits_per_byte, size: pretrain.parameters, date: pretrain.bytes}")
    with pytest.raises(ConfigError, match=r"law.yaml.scaling lacks data"):
        report("law", store=store(tmp_path, texts=("1e5",)), table=str(table), out=tmp_path / "o", quiet=True)
