"""Claims of the literature, checked against a sweep: confirmed, refuted or undecided, with an interval.

All claims of a report are one family of simultaneous intervals, from the model that marks the table.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from harness.errors import HarnessError, UnknownNameError
from harness.plan.claims import Claim, parse, stated
from harness.report.contrasts import Comparison, Contrast
from harness.report.decisions import Decisions
from harness.report.frames import Levels, Results
from harness.report.levels import limits_of_tuning
from harness.report.numbers import comparisons, difference_text
from harness.report.quantities import is_cost, is_time
from harness.report.starts import given_model, shared_models

if TYPE_CHECKING:
    from harness.report.table import Table

Verdict = Literal["confirmed", "refuted", "undecided"]
FAMILY = "claims"
SHORTEST = 10.0
"""Seconds that a stage must run for a claim to be decided on how fast it was."""


class Units(NamedTuple):
    """How numbers of a claim are printed."""

    scale: float = 1.0
    unit: str = ""
    """After scaling."""

    def written(self, text: str) -> str:
        """A difference with its unit: one of percentages is in points."""
        unit = "points" if self.unit == "%" else self.unit
        return f"{text} {unit}" if unit else text


RAW = Units()
"""As the records have them."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A claim with what these records say of it."""

    text: str
    source: str
    finding: str
    """The finding in words, as the source puts it; may be empty."""
    verdict: Verdict
    reason: str
    """Why it is undecided, or what the interval rests on."""
    difference: float | None = None
    """Left minus right, before the offset."""
    low: float | None = None
    high: float | None = None
    answers: bool = False
    """Whether it answers the experiment's question."""
    rates: str = ""
    """What a verdict on trained methods rests on where nobody tuned them well, as `at ...`."""
    bounds: tuple[float, float] = (0.0, 0.0)
    """Where the claim puts the difference: its limit, or both ends of its tolerance."""
    units: Units = RAW
    """Of the difference and its interval where they are printed."""

    @property
    def said(self) -> str:
        """The verdict with the rates that it holds at, where others may turn it round."""
        return f"{self.verdict} {self.rates}".rstrip()

    @property
    def number(self) -> str:
        """The difference with its interval, as the table's column of the metric prints it."""
        if self.difference is None:
            return ""
        ends = (None if end is None else end * self.units.scale for end in (self.low, self.high))
        limits = [bound * self.units.scale for bound in self.bounds]
        return self.units.written(difference_text(self.difference * self.units.scale, *ends, limits=limits))


def units_of(metrics: Collection[str], results: Results, table: Table | None) -> Units:
    """Those of the table's columns of these metrics where all are alike, else raw ones, shares in points."""
    columns = {c.info.name: Units(c.spec.scale, c.unit) for c in reversed(table.columns)} if table else {}
    raw = {
        metric: Units(100, "%") if results.is_share(metric) else Units(unit=results.metrics[metric].unit)
        for metric in metrics
    }
    found = {columns.get(metric, raw[metric]) for metric in metrics}
    found = found if len(found) == 1 else set(raw.values())
    return found.pop() if len(found) == 1 else RAW


def sentence(checked: Checked) -> str:
    """The answer to a question in words: what was asked, what came, and by how much."""
    said = {"confirmed": "So it is here", "refuted": "Not here", "undecided": "Undecided here"}
    rates = f", {checked.rates}" if checked.rates else ""
    number = f": the difference is {checked.number}" if checked.number else ""
    return f"{checked.finding or checked.text} {said[checked.verdict]}{rates}{number}; {checked.reason}."


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A claim with the contrast that decides it, or why there is none."""

    claim: Claim
    given: Mapping[str, Any]
    contrast: Contrast | None = None
    reason: str = ""


def ask(decisions: Decisions, raw: Mapping[str, Any] | str) -> Asked:
    """Read one claim `{source, says, finding, answers}`; a bad one is an error.

    Raises: ConfigError, UnknownNameError for a metric, factor or level that the records do not have
    """
    given = stated(raw)
    claim = parse(str(given["says"]))
    results = decisions.results
    terms = [(weight, results.resolve(term.metric), term.where) for weight, term in claim.terms()]
    if len({metric for _, metric, _ in terms}) == 1:
        found = decisions.contrast([(weight, where) for weight, _, where in terms], terms[0][1])
    else:
        found = decisions.contrast_of_metrics(terms)
    if found is not None and found.weights:
        return Asked(claim=claim, given=given, contrast=found)
    if found is not None:
        return Asked(claim=claim, given=given, reason="both sides are the same numbers")
    why = [
        f"{term}: {line}"
        for (_, term), (_, metric, where) in zip(claim.terms(), terms, strict=True)
        for line in results.missing(where, metric)
    ]
    reason = "no number for " + "; ".join(list(dict.fromkeys(why))[:3] or ["both sides at one seed"])
    return Asked(claim=claim, given=given, reason=reason)


def answer(decisions: Decisions, asked: Asked, table: Table | None = None) -> Checked:
    """What the records say, once every family is declared, in the units of the table's columns."""
    claim, given = asked.claim, asked.given
    base: dict[str, Any] = {
        "text": str(claim),
        "source": str(given.get("source", "")),
        "finding": str(given.get("finding", "")),
        "answers": bool(given.get("answers", False)),
        "bounds": (claim.offset - claim.tolerance, claim.offset + claim.tolerance),
    }
    if asked.contrast is None:
        return Checked(**base, verdict="undecided", reason=asked.reason)
    comparison = decisions.compare(asked.contrast)
    found = judge(claim, comparison, given_model=given_model(decisions.results))
    metrics, results = asked.contrast.metrics, decisions.results
    base["units"] = units_of(metrics, results, table)
    if claim.tolerance and len(metrics) == 1:
        text, refutable = weighed(claim, comparison, decisions, *metrics, units=base["units"])
        found["reason"] += f"; {text}"
        others = len(claim.terms()) < len(results.records) and comparison.test != "exact"
        if found["verdict"] == "confirmed" and others and not refutable:
            found["verdict"] = "undecided"
    better = direction(metrics, results)
    found |= limited(found, comparison, bounds=base["bounds"], better=better, results=results)
    found |= too_short(found, {levels for _, levels, _ in asked.contrast.weights}, metrics, results)
    if found["verdict"] != "undecided" and comparison.test != "exact" and not any(map(is_cost, metrics)):
        compared = {levels for _, levels, _ in asked.contrast.weights}
        base["rates"] = limits_of_tuning(results, compared)
    found["reason"] += f"; over {comparison.left_out}" if comparison.left_out else ""
    return Checked(**base, **found)


def direction(metrics: Collection[str], results: Results) -> bool | None:
    """Whether more is better in all these metrics, or less; None where they differ or have no direction."""
    found = {results.metrics[metric].higher_is_better for metric in metrics}
    return found.pop() if len(found) == 1 else None


def limited(
    found: Mapping[str, Any],
    comparison: Comparison,
    *,
    bounds: tuple[float, float],
    better: bool | None,
    results: Results,
) -> dict[str, Any]:
    """How divergence and a shared pretraining limit a verdict."""
    verdict, reason = found["verdict"], found["reason"]
    if text := comparison.divergence(len(results.seeds), other="the right"):
        reason += f"; the left side {text}"
        if verdict != "undecided" and not comparison.holds(
            above=beyond(comparison, bounds), higher_is_better=better
        ):
            verdict = "undecided"
            reason += ", and what diverged is never better on the seeds that are left"
    if verdict != "undecided" and comparison.about == "methods" and comparison.test != "exact":
        shared = shared_models(results)
        reason += f"; given this {' and '.join(shared)} checkpoint" if shared else ""
    return {"verdict": verdict, "reason": reason}


def too_short(
    found: Mapping[str, Any], compared: Collection[Levels], metrics: Collection[str], results: Results
) -> dict[str, Any]:
    """No verdict on how fast a stage is whose runs end before they are warm."""
    stages = {m.partition(".")[0] for m in metrics if not results.metrics[m].measured and is_time(m)}
    runs = [record for levels in compared for record in results.records[levels].values()]
    facts = [record.data.get("facts", {}).get(stage) or {} for record in runs for stage in stages]
    seconds = min((s for f in facts if isinstance(s := f.get("seconds"), int | float)), default=SHORTEST)
    if seconds >= SHORTEST or found["verdict"] == "undecided":
        return {}
    text = (
        f"runs of {seconds:.2g} s are over before they are warm, {SHORTEST:g} s are needed to speak of speed"
    )
    return {"verdict": "undecided", "reason": f"{text}; {found['reason']}"}


def beyond(comparison: Comparison, bounds: tuple[float, float]) -> bool | None:
    """Whether an interval lies above the bounds of a claim, or below; None inside or across them."""
    assert comparison.low is not None
    assert comparison.high is not None
    return True if comparison.low > bounds[1] else False if comparison.high < bounds[0] else None


def weighed(
    claim: Claim, comparison: Comparison, decisions: Decisions, metric: str, *, units: Units
) -> tuple[str, bool]:
    """A tolerance beside what the sweep shows and could find, and whether anything here exceeds it.

    Where nothing does, of other configurations either, equality within it is a matter of course here.

    That of two effects is held against the larger one, any other against what all configurations differ by.
    """
    tolerance, effect, results = claim.tolerance, larger_effect(claim, decisions, metric), decisions.results
    wheres = [dict(zip(results.factors, levels, strict=True)) for levels in results.records]
    values = [found.mean for where in wheres if (found := results.measured(where, metric))]
    span = max(values) - min(values) if effect is None else effect
    of = "all that configurations differ by" if effect is None else "the larger effect that it compares"
    share = f"{100 * tolerance / span:.3g} % of {of}" if span else "of no difference"
    text = f"the tolerance of {units.written(f'{tolerance * units.scale:g}')} is {share}"
    if span and 2 * tolerance >= span:
        text += f", so that {'nothing' if tolerance > span else 'little'} here could refute it"
    if comparison.detectable:
        text += (
            f", {tolerance / comparison.detectable:.2g} times the smallest difference found with 80 % power"
        )
    return text, tolerance <= span


def larger_effect(claim: Claim, decisions: Decisions, metric: str) -> float | None:
    """The larger of the two differences that a claim compares; None where it compares numbers."""
    found = []
    for side in (claim.left, claim.right):
        terms = side.terms(1.0)
        contrast = decisions.contrast([(weight, term.where) for weight, term in terms], metric)
        if len(terms) == 2 and contrast is not None and contrast.weights:
            found.append(abs(decisions.compare(contrast).difference))
    return max(found) if len(found) == 2 else None


def check(results: Results, raw: Mapping[str, Any] | str, table: Table | None = None) -> Checked:
    """What the records say of one claim alone, in the units of a table's columns.

    Raises: ConfigError, UnknownNameError for a metric, factor or level that the records do not have
    """
    decisions = Decisions(results)
    asked = ask(decisions, raw)
    decisions.declare(FAMILY, [asked.contrast] if asked.contrast else [])
    return answer(decisions, asked, table)


def judge(claim: Claim, found: Comparison, *, given_model: str = "") -> dict[str, Any]:
    """Verdict, reason and interval: decided about methods, by the simultaneous interval over seeds.

    Where a checkpoint from outside is all there is and nothing is drawn from a seed, as in rounding a
    released model, the claim is decided for that checkpoint, by the simultaneous interval over documents.
    """
    numbers = {"difference": found.difference, "low": found.low, "high": found.high}
    if found.about == "checkpoints" and given_model and not found.drawn and found.low is not None:
        assert found.high is not None
        documents = f"{found.num_items} documents ({comparisons(found.family)})"
        rests = f"simultaneous 95 % interval over {documents}"
        return {
            **numbers,
            "verdict": decide(claim, found.low, found.high),
            "reason": f"{rests}; no seed moves it; given the checkpoint {given_model}",
        }
    if found.about != "methods" or found.low is None or found.high is None:
        about = ""
        if found.low is not None and found.high is not None:
            said = decide(claim, found.low, found.high)
            about = f"; these checkpoints say {said} ({found.test}, {found.num_items} documents)"
        return {**numbers, "verdict": "undecided", "reason": found.reason + about}
    verdict = decide(claim, found.low, found.high)
    if found.test == "exact":
        return {**numbers, "verdict": verdict, "reason": f"the same in all {found.num_seeds} seeds"}
    rests = f"simultaneous 95 % interval over {found.num_seeds} seeds ({comparisons(found.family)})"
    if verdict == "undecided" and claim.relation == "=" and not claim.tolerance:
        rests += "; equality without a tolerance (+- number) can only be refuted"
    elif verdict == "undecided":
        rests += " holds the limit"
    return {**numbers, "verdict": verdict, "reason": rests}


def decide(claim: Claim, low: float, high: float) -> Verdict:
    """Confirmed where the whole interval satisfies the claim, refuted where none of it does."""
    limit = claim.offset
    if claim.relation == "=":
        if low > limit + claim.tolerance or high < limit - claim.tolerance:
            return "refuted"
        inside = claim.tolerance > 0 and low >= limit - claim.tolerance and high <= limit + claim.tolerance
        return "confirmed" if inside else "undecided"
    if claim.relation in (">", ">="):
        low, high, limit = -high, -low, -limit
    if high < limit or (high == limit and "=" in claim.relation):
        return "confirmed"
    return "refuted" if low > limit or (low == limit and "=" not in claim.relation) else "undecided"


def ask_all(decisions: Decisions, claims: Sequence[Mapping[str, Any] | str]) -> list[Asked | Checked]:
    """All claims, declared as one family; one that these records cannot speak of is undecided and says why.

    Raises: ConfigError for a claim that does not follow the grammar
    """
    found: list[Asked | Checked] = []
    for raw in claims:
        given = stated(raw)
        text = str(given["says"])
        parse(text)
        try:
            found.append(ask(decisions, raw))
        except HarnessError as error:
            found.append(
                Checked(
                    text=text,
                    source=str(given.get("source", "")),
                    finding=str(given.get("finding", "")),
                    verdict="undecided",
                    reason=str(error),
                )
            )
    decisions.declare(FAMILY, [a.contrast for a in found if isinstance(a, Asked) and a.contrast])
    return found


def fitting(decisions: Decisions, claims: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A layout's claims, without `optional` ones of a metric, factor or level that the records lack."""
    kept = []
    for given in claims:
        claim = {key: value for key, value in given.items() if key != "optional"}
        if not (given.get("optional") and _names_nothing(decisions, claim)):
            kept.append(claim)
    return kept


def _names_nothing(decisions: Decisions, claim: Mapping[str, Any]) -> bool:
    try:
        ask(decisions, claim)
    except UnknownNameError:
        return True
    except HarnessError:
        pass  # said where it is asked
    return False


def answer_all(
    decisions: Decisions, asked: Sequence[Asked | Checked], table: Table | None = None
) -> list[Checked]:
    """The answers, once every family is declared, in the units of the table's columns."""
    return [a if isinstance(a, Checked) else answer(decisions, a, table) for a in asked]


def check_all(results: Results, claims: Sequence[Mapping[str, Any] | str]) -> list[Checked]:
    """All claims of one report, without a table.

    Raises: ConfigError for a claim that does not follow the grammar
    """
    decisions = Decisions(results)
    asked = ask_all(decisions, claims)
    return answer_all(decisions, asked)
