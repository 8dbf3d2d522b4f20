"""Claims of the literature, checked against a sweep: confirmed, refuted or undecided, with an interval.

Grammar (DESIGN.md section 8):

    claim  = term relation term [offset]
    term   = metric [ "[" factor "=" level { "," factor "=" level } "]" ]
    relation = "<" | "<=" | "=" | ">=" | ">"
    offset = ("+" | "-" | "+-") number

`+- number` after `=` is a tolerance: without one, equality can be refuted but never confirmed. Metrics
and levels with spaces may be quoted. A term is averaged over the factors it does not name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.errors import ConfigError, HarnessError
from harness.report.frames import Results
from harness.report.statistics import Comparison, Measured, compare

Verdict = Literal["confirmed", "refuted", "undecided"]

TOKEN = re.compile(
    r"""\s*(?:
      (?P<relation><=|>=|<|>|=)
    | (?P<offset>\+-|\+|-(?=\s*[0-9.]))
    | (?P<bracket>[\[\],])
    | "(?P<quoted>[^"]*)"
    | (?P<number>[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?(?=\s*$))
    | (?P<word>[^\s\[\],=<>"+][^\[\],=<>"+]*)
    )""",
    re.VERBOSE,
)


@dataclass(frozen=True, kw_only=True)
class Term:
    """A metric at some levels, averaged over the factors not named."""

    metric: str
    where: Mapping[str, str]

    def __str__(self) -> str:
        inside = ", ".join(f"{f}={v}" for f, v in self.where.items())
        return self.metric + (f"[{inside}]" if inside else "")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """`left relation right + offset`, or `left = right +- tolerance`."""

    left: Term
    relation: str
    right: Term
    offset: float = 0.0
    tolerance: float = 0.0

    def __str__(self) -> str:
        sign = f" +- {self.tolerance:g}" if self.tolerance else ""
        sign = f" {'+' if self.offset > 0 else '-'} {abs(self.offset):g}" if self.offset else sign
        return f"{self.left} {self.relation} {self.right}{sign}"


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


class Parser:
    """Recursive descent over the tokens of one claim."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(tokenize(text))
        self.at = 0

    def claim(self) -> Claim:
        left = self.term()
        relation = self.take("relation", "one of < <= = >= >")
        right = self.term()
        sign, number = "", 0.0
        if self.kind == "offset":
            sign = self.take("offset", "+, - or +-")
            number = float(self.take("number", "a number"))
        if self.kind != "end":
            raise self.error("nothing more")
        if sign == "+-" and relation != "=":
            raise ConfigError(f"Claim '{self.text}': `+-` is a tolerance and needs `=`; use + or - here")
        tolerance = number if sign == "+-" else 0.0
        offset = {"-": -number, "+": number}.get(sign, 0.0)
        return Claim(left=left, relation=relation, right=right, offset=offset, tolerance=tolerance)

    def term(self) -> Term:
        metric = self.name("a metric")
        where: dict[str, str] = {}
        if self.kind == "bracket" and self.value == "[":
            self.at += 1
            while True:
                factor = self.name("a factor")
                if self.take("relation", "=") != "=":
                    raise ConfigError(f"Claim '{self.text}': write {factor}=level")
                where[factor] = self.name("a level")
                if self.take("bracket", ", or ]") == "]":
                    break
        return Term(metric=metric, where=where)

    @property
    def kind(self) -> str:
        return self.tokens[self.at][0]

    @property
    def value(self) -> str:
        return self.tokens[self.at][1]

    def take(self, kind: str, wanted: str) -> str:
        if self.kind != kind:
            raise self.error(wanted)
        self.at += 1
        return self.tokens[self.at - 1][1]

    def name(self, wanted: str) -> str:
        if self.kind not in ("word", "quoted", "number"):
            raise self.error(wanted)
        self.at += 1
        return self.tokens[self.at - 1][1]

    def error(self, wanted: str) -> ConfigError:
        found = f"'{self.value}'" if self.kind != "end" else "its end"
        return ConfigError(
            f"Claim '{self.text}': expected {wanted} at {found}; "
            "the form is metric[factor=level, ...] < metric[factor=level, ...] + number"
        )


def tokenize(text: str) -> Iterator[tuple[str, str]]:
    """Kind and value of each token, then an end.

    Raises: ConfigError
    """
    at = 0
    depth = 0
    while text[at:].strip():
        # A level may hold what is an operator outside of brackets: `lr=1e-3`, `model=a-b`.
        inside = re.compile(r'\s*([^\s\[\],="][^\],="]*)').match(text, at) if depth else None
        found = None if inside else TOKEN.match(text, at)
        if inside:
            at = inside.end()
            yield "word", inside[1].strip()
        elif found and found.lastgroup:
            at = found.end()
            value = found[found.lastgroup]
            depth += {"[": 1, "]": -1}.get(value, 0) if found.lastgroup == "bracket" else 0
            yield found.lastgroup, value.strip()
        else:
            raise ConfigError(f"Claim '{text}': cannot read '{text[at:].strip()}'")
    yield "end", ""


def parse(text: str) -> Claim:
    """A claim from its text.

    Raises: ConfigError that shows the form
    """
    return Parser(text).claim()


def check(results: Results, raw: Mapping[str, Any] | str) -> Checked:
    """What the records say of one claim `{source, says, finding}`; a bad one is an error.

    Raises: ConfigError, UnknownNameError for a metric, factor or level that the records do not have
    """
    given = {"says": raw} if isinstance(raw, str) else dict(raw)
    unknown = set(given) - {"says", "source", "finding"}
    if unknown or "says" not in given:
        raise ConfigError(f"claims: {given} must have `says` and may have `source` and `finding`, no more")
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
