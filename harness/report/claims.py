"""Claims of the literature, checked against a sweep: confirmed, refuted or undecided, with an interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.errors import HarnessError
from harness.plan.claims import Claim, parse, stated
from harness.report.frames import Results
from harness.report.statistics import Comparison, Measured, compare

Verdict = Literal["confirmed", "refuted", "undecided"]


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
    bounds: tuple[float, float] = (0.0, 0.0)
    """Where the claim puts the difference: its limit, or both ends of its tolerance."""


def check(results: Results, raw: Mapping[str, Any] | str) -> Checked:
    """What the records say of one claim `{source, says, finding}`; a bad one is an error.

    Raises: ConfigError, UnknownNameError for a metric, factor or level that the records do not have
    """
    given = stated(raw)
    claim = parse(str(given["says"]))
    metrics = [results.resolve(term.metric) for term in (claim.left, claim.right)]
    left, right, left_out = sides_of(results, claim, metrics)
    base: dict[str, Any] = {
        "text": str(claim),
        "source": str(given.get("source", "")),
        "finding": str(given.get("finding", "")),
        "bounds": (claim.offset - claim.tolerance, claim.offset + claim.tolerance),
    }
    if left is None or right is None:
        terms = zip((claim.left, claim.right), metrics, strict=True)
        why = [f"{term}: {line}" for term, metric in terms for line in results.missing(term.where, metric)]
        reason = "no number for " + "; ".join(list(dict.fromkeys(why))[:3])
        return Checked(**base, verdict="undecided", reason=reason)
    found = judge(claim, compare(left, right))
    found["reason"] += f"; over {left_out}" if left_out else ""
    return Checked(**base, **found)


def sides_of(
    results: Results, claim: Claim, metrics: Sequence[str]
) -> tuple[Measured | None, Measured | None, str]:
    """Both sides over the same other levels and seeds; of two metrics, each over all it has."""
    if metrics[0] == metrics[1]:
        return results.pair(claim.left.where, claim.right.where, metrics[0])
    left = results.measured(claim.left.where, metrics[0])
    return left, results.measured(claim.right.where, metrics[1]), ""


def judge(claim: Claim, found: Comparison) -> dict[str, Any]:
    """Verdict, reason and interval: decided only about methods, by the 95 % interval over seeds."""
    numbers = {"difference": found.difference, "low": found.low, "high": found.high}
    if found.about != "methods" or found.low is None or found.high is None:
        about = ""
        if found.low is not None and found.high is not None:
            about = (
                f"; these checkpoints say {decide(claim, found.low, found.high)} ({found.test} over items)"
            )
        return {**numbers, "verdict": "undecided", "reason": found.reason + about}
    verdict = decide(claim, found.low, found.high)
    if found.test == "exact":
        return {**numbers, "verdict": verdict, "reason": f"the same in all {found.num_seeds} seeds"}
    rests = f"95 % interval of per-seed differences, {found.num_seeds} seeds"
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


def check_all(results: Results, claims: Sequence[Mapping[str, Any] | str]) -> list[Checked]:
    """All claims; one that these records cannot speak of is undecided and says why.

    Raises: ConfigError for a claim that does not follow the grammar
    """
    found = []
    for raw in claims:
        text = raw if isinstance(raw, str) else str(raw.get("says", ""))
        parse(text)
        try:
            found.append(check(results, raw))
        except HarnessError as error:
            given: Mapping[str, Any] = {} if isinstance(raw, str) else raw
            found.append(
                Checked(
                    text=text,
                    source=str(given.get("source", "")),
                    finding=str(given.get("finding", "")),
                    verdict="undecided",
                    reason=str(error),
                )
            )
    return found
