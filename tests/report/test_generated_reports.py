"""Random reports of every kind: mark, interval, claim, colour, rank and text never contradict each other.

Blocks x cells with missing seeds, divergences, ties and numbers that no seed moves; means over items of runs
or of fixed checkpoints; claims with offsets, tolerances and differences of differences, and their mirrors.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import simulate

from harness.plan.claims import parse as parse_claim
from harness.report import arrange, claims, draw_effects, frames, tabulate, views, writers
from harness.report.contrasts import Comparison
from harness.report.decisions import Decisions
from harness.report.drawing import BAD, GOOD, SOFT
from harness.report.latex import latex
from harness.report.layout import parse
from harness.report.record import Record
from harness.report.scored import Scored
from harness.report.table import Table, TableCell, differs, sign

KINDS = ("numbers", "items", "ties", "sizes", "checkpoints")
METRIC = "lm_eval.t.acc"
WORDS = {"▲": "better", "▼": "worse", "△": "better", "▽": "worse", "≈": "tie", "≃": "tie", "=": "tie"}
WORDS |= {"≠": "differs", "≄": "differs", "?": "undecided"}
LATEX = {"better": "blacktriangle", "worse": "blacktriangledown", "tie": "approx"}
MIRRORED = {"<": ">", ">": "<", "=": "=", "<=": ">=", ">=": "<="}
NUMBER = r"[-+]?[0-9.,]+(?:e[-+][0-9]+)?"


@dataclass
class Drawn:
    """What a random report is made of, so that it can be made again otherwise."""

    kind: str
    factors: dict[str, list[str]]
    seeds: int
    values: dict[tuple[tuple[str, ...], int], float]
    items: dict[tuple[tuple[str, ...], int], np.ndarray]
    diverged: set[tuple[tuple[str, ...], int]]
    higher: bool | None
    claims: list[str] = field(default_factory=list)

    def results(self, *, scale: float = 1.0, shift: float = 0.0, flip: bool = False) -> frames.Results:
        """The records, arranged; the metric times `scale`, or its negative with the other direction."""
        found = []
        for (levels, seed), value in self.values.items():
            where = dict(zip(self.factors, levels, strict=True))
            record = simulate.record_of(
                name="demo", factors=self.factors, levels=where, seed=seed, seeds=list(range(self.seeds))
            )
            number = (-value if flip else value) * scale + shift * seed
            higher = None if self.higher is None else self.higher is not flip
            n = len(self.items[levels, seed]) if self.items else 0
            record["metrics"].append(
                simulate.metric("lm_eval", "t", "acc", number, higher_is_better=higher, n=n)
            )
            if (levels, seed) in self.diverged:
                record["outcome"]["status"] = "diverged"
            if self.kind in ("checkpoints", "sizes"):
                record["config"]["model"]["path"] = "/models/released" if self.kind == "checkpoints" else ""
                for stage in record["stages"]:
                    stage["key"] = ".".join(levels)
            embedded = {}
            if self.items:
                docs = [f"d{i}" for i in range(n)]
                embedded["lm_eval.t"] = Scored.of({"doc_hash": docs, "acc": self.items[levels, seed]})
            found.append(Record(data=record, embedded=embedded))
        return arrange.arrange(found)


def drawn(rng: np.random.Generator) -> Drawn:
    kind = str(rng.choice(KINDS, p=[0.4, 0.15, 0.15, 0.1, 0.2]))
    sizes = rng.integers(2, 5, rng.integers(1, 3))
    factors = {f"f{i}": [f"l{i}{v}" for v in range(n)] for i, n in enumerate(sizes)}
    cells = list(itertools.product(*factors.values()))
    effect = {c: float(rng.normal(0, 2)) * int(rng.integers(0, 2)) for c in cells}
    noise = {c: float(rng.choice([0.2, 1.0, 5.0])) for c in cells}
    seeds = int(rng.integers(1, 7))
    block = rng.normal(0, 1, seeds)
    difficulty = rng.normal(0, 1, int(rng.integers(12, 60)))
    values, items = {}, {}
    for c, seed in itertools.product(cells, range(seeds)):
        if kind in ("items", "checkpoints"):
            luck = block[seed] / 2 if kind == "items" else 0.0
            draw = rng if kind == "items" else np.random.default_rng(cells.index(c))
            chance = simulate.sigmoid(effect[c] + luck - difficulty)
            items[c, seed] = (draw.random(len(difficulty)) < chance).astype(float)
            values[c, seed] = float(items[c, seed].mean())
        elif kind in ("ties", "sizes"):
            values[c, seed] = round(effect[c]) + (float(block[seed]) if kind == "ties" else 0.0)
        else:
            values[c, seed] = effect[c] + block[seed] + rng.normal(0, noise[c])
    lost = {place for place in values if rng.random() < 0.04}
    diverged = {place for place in lost if rng.random() < 0.5}
    gone = lost - diverged
    values = {place: value for place, value in values.items() if place not in gone}
    higher = [True, False, None][int(rng.choice(3, p=[0.5, 0.4, 0.1]))]
    found = Drawn(kind, factors, seeds, values, items, diverged, higher)
    found.claims = list(random_claims(rng, factors, span=float(np.ptp(list(effect.values()))) or 1.0))
    return found


def random_claims(
    rng: np.random.Generator, factors: Mapping[str, list[str]], *, span: float
) -> Iterator[str]:
    """Claims, each followed by what is the same said from the other side."""

    def levels(names: list[str]) -> str:
        return ", ".join(f"{f}={rng.choice(factors[f])}" for f in names)

    for _ in range(8):
        named = [f for f in factors if rng.random() < 0.8] or list(factors)[:1]
        sides = [f"acc[{levels(named)}]" for _ in range(2)]
        if len(factors) > 1 and rng.random() < 0.4:
            gap = f"(acc[{levels(['f0'])}] - acc[{levels(['f0'])}])"
            sides = [f"{gap}[{levels(['f1'])}]" for _ in range(2)]
        relation = str(rng.choice(["=", "=", *MIRRORED]))
        margin = f"{span * float(rng.choice([0.1, 0.5, 1.0, 2.0, 4.0])):.3g}"
        sign = str(rng.choice(["", "+-" if relation == "=" else "+"]))
        back = {"": "", "+-": f" +- {margin}", "+": f" - {margin}"}[sign]
        yield f"{sides[0]} {relation} {sides[1]}{f' {sign} {margin}' if sign else ''}"
        yield f"{sides[1]} {MIRRORED[relation]} {sides[0]}{back}"


@dataclass
class Said:
    """A report with the answer behind each of its parts."""

    results: frames.Results
    decisions: Decisions
    table: Table
    asked: list[claims.Asked | claims.Checked]
    checked: list[claims.Checked]

    def comparison(self, sides: list[tuple[float, dict[str, str]]]) -> Any:
        contrast = self.decisions.contrast(sides, METRIC)
        return contrast and contrast.key


def said(results: frames.Results, texts: list[str]) -> Said:
    decisions = Decisions(results)
    asked = claims.ask_all(decisions, texts)
    table = tabulate.build(results, parse({"rows": list(results.factors)}, where="x"), decisions)
    return Said(results, decisions, table, asked, claims.answer_all(decisions, asked, table))


def numbers_of(text: str) -> tuple[float, float] | None:
    """Both ends of a printed interval."""
    found = re.search(rf"\(({NUMBER}) to ({NUMBER})\)", text)
    return None if found is None else tuple(float(x.replace(",", "")) for x in found.groups())  # type: ignore[return-value]


def check_cell(cell: TableCell, report: Said) -> None:
    """Mark, interval, p, printed ends and every format of one cell."""
    c, column = cell.comparison, report.table.columns[0]
    word = WORDS.get(sign(cell))
    assert word == cell.verdict or (word is None and cell.verdict not in set(WORDS.values()))
    if c is None:
        return
    if c.low is not None:
        assert c.high is not None
        assert c.low <= c.difference <= c.high
        assert c.significant == (
            c.difference != 0 if c.test == "exact" else bool(c.p is not None and c.p <= 0.05)
        )
        if cell.verdict in ("better", "worse", "differs"):
            assert c.significant
        if cell.verdict == "tie":
            assert not c.significant
        if cell.verdict in ("better", "worse"):
            assert (cell.verdict == "better") == ((c.difference > 0) == column.higher_is_better)
        if ends := numbers_of(differs(cell, column)):
            assert (ends[0] > 0 or ends[1] < 0) == c.significant
    else:
        assert cell.verdict in ("undecided", "untested", "secondary")
    if cell.verdict == "better":  # what diverged more often than the baseline is never better
        own, other = c.diverged
        assert own.lost / own.runs <= other.lost / other.runs


def rests_on_the_lost(
    found: claims.Checked, relation: str, comparison: Comparison, higher: bool | None
) -> bool:
    """Whether a verdict calls the side that diverged more good, or says anything without a direction."""
    left, right = (side.lost / side.runs for side in comparison.diverged)
    if left == right or found.verdict == "undecided":
        return False
    low = comparison.low if comparison.low is not None else 0.0
    is_above = (
        (relation[0] == ">") == (found.verdict == "confirmed") if relation != "=" else low > found.bounds[1]
    )
    within = relation == "=" and found.verdict == "confirmed"
    return higher is None or within or is_above == ((left > right) == higher)


def check_claim(
    asked: claims.Asked, found: claims.Checked, comparison: Comparison, higher: bool | None
) -> None:
    """The verdict follows from the interval and from what diverged; so does what is printed of it."""
    claim = asked.claim
    assert not rests_on_the_lost(found, claim.relation, comparison, higher)
    assert parse_claim(found.text) == claim
    assert found.verdict in claims.sentence(found).lower() or {
        "confirmed": "So it is here", "refuted": "Not here", "undecided": "Undecided here"
    }[found.verdict] in claims.sentence(found)  # fmt: skip
    if found.verdict == "undecided":
        return
    low, high = comparison.low, comparison.high
    assert (found.low, found.high) == (low, high)
    assert low is not None
    assert high is not None
    below, above = claim.offset - claim.tolerance, claim.offset + claim.tolerance
    holds = {
        "<": high < below, "<=": high <= below, ">": low > above, ">=": low >= above,
        "=": below <= low and high <= above and claim.tolerance > 0,
    }[claim.relation]  # fmt: skip
    assert holds == (found.verdict == "confirmed")
    if not holds:
        assert {
            "<": low >= below, "<=": low > below, ">": high <= above, ">=": high < above,
            "=": low > above or high < below,
        }[claim.relation]  # fmt: skip
    if ends := numbers_of(found.number):
        assert [(ends[0] > x) - (ends[0] < x) for x in (below, above)] == [
            (low > x) - (low < x) for x in (below, above)
        ]
        assert [(ends[1] > x) - (ends[1] < x) for x in (below, above)] == [
            (high > x) - (high < x) for x in (below, above)
        ]


def alone(report: Said, asked: claims.Asked) -> Comparison:
    """The answer to a claim without the table."""
    decisions = Decisions(report.results)
    decisions.declare(
        "claims", [a.contrast for a in report.asked if isinstance(a, claims.Asked) and a.contrast]
    )
    assert asked.contrast is not None
    return decisions.compare(asked.contrast)


def width(comparison: Comparison) -> float:
    assert comparison.low is not None
    assert comparison.high is not None
    return comparison.high - comparison.low


def check_ranks(table: Table) -> None:
    """Bold is the best value that may be ranked; whatever may be best is beaten by nothing that is tested."""
    column = table.columns[0]
    if column.higher_is_better is None:
        assert not any(cell.rank for (cell,) in table.cells)
        return
    for _, rows in itertools.groupby(
        range(len(table.rows)), key=lambda i: table.rows[i].get(table.layout.group, "")
    ):
        cells = [table.cells[i][0] for i in rows]
        ranked = [c for c in cells if c.rank]
        complete = [c for c in cells if c.estimate is not None and not c.missing]
        if not ranked:
            continue
        best = max(complete, key=lambda c: c.estimate.mean * (1 if column.higher_is_better else -1))  # type: ignore[union-attr]
        assert all(c in complete for c in ranked)
        assert all(c.rank == 1 for c in complete if c.estimate.mean == best.estimate.mean)  # type: ignore[union-attr]
        assert all(c.estimate.mean == best.estimate.mean for c in ranked if c.rank == 1)  # type: ignore[union-attr]
        reference = [c for c in complete if c.verdict == "baseline"]
        for cell in ranked:
            assert not (reference and cell.verdict == "worse"), (
                "worse than a ranked baseline, yet perhaps best"
            )
            assert not (cell in reference and any(c.verdict == "better" for c in complete)), (
                "beaten, yet best"
            )


def check_figure(report: Said, answers: Mapping[Any, TableCell]) -> int:
    """The colour and the shape of each effect that is a cell of the table."""
    from matplotlib.figure import Figure

    column, met = report.table.columns[0], 0
    if not (effects := views.marginal_effects(report.decisions, METRIC)):
        return 0
    axes = Figure().subplots()
    names = {draw_effects.row_of(effect): effect.level for effect in effects}
    draw_effects.forest(axes, effects, names, column)
    points = [line for line in axes.lines if line.get_marker() in ("o", "^", "v")]
    for effect, point in zip(effects, points, strict=True):
        base = views.baseline_level(report.results, effect.factor)
        key = report.comparison([(1.0, {effect.factor: effect.level}), (-1.0, {effect.factor: base})])
        cell = answers.get(key)
        # One average may have lost combinations that the other never had: another question.
        if cell is None or cell.comparison is None or cell.comparison.diverged != effect.comparison.diverged:
            continue
        met += 1
        wanted = {"better": GOOD, "worse": BAD}.get(cell.verdict, SOFT)
        assert point.get_markeredgecolor() == wanted
        up = point.get_marker()
        assert up == ("o" if wanted == SOFT else "^" if cell.comparison.difference > 0 else "v")
        hollow = point.get_markerfacecolor() == "none"
        assert hollow == (cell.comparison.about != "methods")
    return met


def check_files(table: Table) -> None:
    """Markdown, LaTeX and CSV say of each cell what the table holds."""
    lines = writers.markdown(table).splitlines()[2:]
    tex = [line for line in latex(table).splitlines() if line.rstrip().endswith(r"\\")]
    rows = writers.flat(table)
    for (cell,), line, row in zip(table.cells, lines, rows, strict=True):
        assert (row["verdict"], row["rank"]) == (cell.verdict, cell.rank)
        shown = line.rsplit("|", 2)[1]
        assert ("**" in shown, "<u>" in shown) == (cell.rank == 1, cell.rank == 2)
        assert (sign(cell) in shown) if sign(cell) else not set(shown) & set(WORDS)
    assert sum(LATEX["better"] + "$" in line for line in tex) == sum(
        c.verdict == "better" and sign(c) == "▲" for (c,) in table.cells
    )


def check(report: Said) -> dict[str, int]:
    """Everything that one report says; how much of each kind there was."""
    answers: dict[Any, TableCell] = {}
    met = {
        "marked": 0,
        "claims that are cells": 0,
        "effects that are cells": 0,
        "decided": 0,
        "of checkpoints": 0,
    }
    for (cell,) in report.table.cells:
        check_cell(cell, report)
        if cell.comparison is not None:
            reference = {**cell.where, **report.table.baseline}
            answers[report.comparison([(1.0, cell.where), (-1.0, reference)])] = cell
            met["marked"] += cell.verdict in ("better", "worse")
            met["of checkpoints"] += cell.comparison.about == "checkpoints"
    for asked, found in zip(report.asked, report.checked, strict=True):
        if not isinstance(asked, claims.Asked) or asked.contrast is None:
            assert found.verdict == "undecided"
            continue
        comparison = report.decisions.compare(asked.contrast)
        check_claim(asked, found, comparison, report.table.columns[0].higher_is_better)
        met["decided"] += found.verdict != "undecided"
        if (cell := answers.get(asked.contrast.key)) is not None and cell.comparison is not None:
            met["claims that are cells"] += 1
            known = cell.comparison
            assert known.low is None or width(known) >= width(alone(report, asked)), (
                "the wider of both families"
            )
            same = comparison.difference == known.difference
            assert (comparison if same else comparison.reversed()).low == known.low
            if asked.claim.relation in "<>" and not asked.claim.offset and found.verdict == "confirmed":
                assert known.significant
    for one, other in zip(report.checked[::2], report.checked[1::2], strict=True):
        assert one.verdict == other.verdict, "a claim and the same from the other side"
    check_ranks(report.table)
    check_files(report.table)
    met["effects that are cells"] = check_figure(report, answers)
    return met


def test_random_reports_never_contradict_themselves() -> None:
    rng = np.random.default_rng(9)
    met: dict[str, int] = {}
    kinds: set[str] = set()
    for _ in range(120):
        one = drawn(rng)
        kinds.add(one.kind)
        for name, count in check(said(one.results(), one.claims)).items():
            met[name] = met.get(name, 0) + count
    assert kinds == set(KINDS)
    assert all(count > 20 for count in met.values()), met


def verdicts_of(report: Said) -> list[Any]:
    cells = [
        (c.verdict, c.rank, c.comparison and c.comparison.about, c.estimate and c.estimate.basis)
        for (c,) in report.table.cells
    ]
    return [
        *cells,
        *(found.verdict for found in report.checked if "+" not in found.text and " - 0" not in found.text),
    ]


@pytest.mark.parametrize(
    "change",
    [{"scale": 1e-9}, {"scale": 1e9}, {"flip": True}, {"shift": 0.25}],
    ids=["small unit", "large unit", "other direction", "a seed's luck"],
)
def test_no_verdict_depends_on_the_unit_or_on_which_direction_is_better(change: dict[str, Any]) -> None:
    """In other units, as its negative, or with what a seed adds to all: the same is decided."""
    rng = np.random.default_rng(10)
    for _ in range(60):
        one = drawn(rng)
        if one.kind in ("items", "checkpoints") or ("shift" in change and one.kind == "sizes"):
            continue  # a share has its unit, and a size no luck
        texts = [text for text in one.claims if "+" not in text and not re.search(r" - [0-9.]", text)]
        before = said(one.results(), texts)
        after = said(one.results(**change), [mirrored(text) if "flip" in change else text for text in texts])
        assert verdicts_of(after) == verdicts_of(before), one


def mirrored(claim: str) -> str:
    """A claim of a metric as one of its negative."""
    return re.sub(r" (<=|>=|<|>) ", lambda found: f" {MIRRORED[found[1]]} ", claim)
