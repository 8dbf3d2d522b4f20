"""Claims of the literature, checked against a sweep: confirmed, refuted or undecided, with an interval.

Grammar (DESIGN.md section 8):

    claim  = side relation side [offset]
    side   = term | "(" term "-" term ")" [ levels ]
    term   = metric [ levels ]
    levels = "[" factor "=" level { "," factor "=" level } "]"
    relation = "<" | "<=" | "=" | ">=" | ">"
    offset = ("+" | "-" | "+-") number

`(a - b)[x] < (a - b)[y]` compares differences: whether an effect depends on another factor. `+- number`
after `=` is a tolerance: without one, equality can be refuted but never confirmed. Metrics and levels with
spaces may be quoted. A term is averaged over the factors it does not name.

All claims of a report are one family of simultaneous intervals, from the model that marks the table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.errors import ConfigError, HarnessError
from harness.report.decisions import Comparison, Contrast, Decisions
from harness.report.frames import Results

Verdict = Literal["confirmed", "refuted", "undecided"]
FAMILY = "claims"

TOKEN = re.compile(
    r"""\s*(?:
      (?P<relation><=|>=|<|>|=)
    | (?P<offset>\+-|\+|-(?=\s*[0-9.]))
    | (?P<minus>-)
    | (?P<bracket>[\[\],])
    | (?P<paren>[()])
    | "(?P<quoted>[^"]*)"
    | (?P<number>[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?(?=\s*$))
    | (?P<word>[^\s\[\],=<>"+()][^\[\],=<>"+()]*?)(?=\s+-|\s*[\[\],=<>"+()]|\s*$)
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

    def at(self, levels: Mapping[str, str], claim: str) -> Term:
        """The term at further levels.

        Raises: ConfigError where it names another level of one of these factors
        """
        for factor, level in levels.items():
            if self.where.get(factor, level) != level:
                raise ConfigError(
                    f"Claim '{claim}': {factor} is {self.where[factor]} inside and {level} outside ( )"
                )
        return Term(metric=self.metric, where={**self.where, **levels})


@dataclass(frozen=True, kw_only=True)
class Side:
    """A term, or the difference of two."""

    first: Term
    minus: Term | None = None

    def __str__(self) -> str:
        return str(self.first) if self.minus is None else f"({self.first} - {self.minus})"

    def terms(self, sign: float) -> list[tuple[float, Term]]:
        """Its terms with their weights in the claim."""
        return [(sign, self.first)] + ([(-sign, self.minus)] if self.minus else [])


@dataclass(frozen=True, kw_only=True)
class Claim:
    """`left relation right + offset`, or `left = right +- tolerance`."""

    left: Side
    relation: str
    right: Side
    offset: float = 0.0
    tolerance: float = 0.0

    def __str__(self) -> str:
        sign = f" +- {self.tolerance:g}" if self.tolerance else ""
        sign = f" {'+' if self.offset > 0 else '-'} {abs(self.offset):g}" if self.offset else sign
        return f"{self.left} {self.relation} {self.right}{sign}"

    def terms(self) -> list[tuple[float, Term]]:
        """Left minus right."""
        return [*self.left.terms(1.0), *self.right.terms(-1.0)]


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
    bounds: tuple[float, float] = (0.0, 0.0)
    """Where the claim puts the difference: its limit, or both ends of its tolerance."""


class Parser:
    """Recursive descent over the tokens of one claim."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(tokenize(text))
        self.at = 0

    def claim(self) -> Claim:
        left = self.side()
        relation = self.take("relation", "one of < <= = >= >")
        right = self.side()
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

    def side(self) -> Side:
        if (self.kind, self.value) != ("paren", "("):
            return Side(first=self.term())
        self.at += 1
        first = self.term()
        self.take("minus", "- and a second term")
        second = self.term()
        if self.take("paren", ")") != ")":
            raise self.error(")")
        shared = self.levels()
        return Side(first=first.at(shared, self.text), minus=second.at(shared, self.text))

    def term(self) -> Term:
        return Term(metric=self.name("a metric"), where=self.levels())

    def levels(self) -> dict[str, str]:
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
        return where

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
            "the form is metric[factor=level, ...] < metric[factor=level, ...] + number, "
            "where (metric[...] - metric[...])[factor=level] may stand for either side"
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
    given = {"says": raw} if isinstance(raw, str) else dict(raw)
    unknown = set(given) - {"says", "source", "finding", "answers"}
    if unknown or "says" not in given:
        raise ConfigError(
            f"claims: {given} must have `says` and may have `source`, `finding` and `answers`, no more"
        )
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


def answer(decisions: Decisions, asked: Asked) -> Checked:
    """What the records say, once every family is declared."""
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
    found = judge(claim, comparison)
    better = decisions.results.metrics[min(asked.contrast.metrics)].higher_is_better
    found |= limited(found, comparison, better=better, results=decisions.results)
    found["reason"] += f"; over {comparison.left_out}" if comparison.left_out else ""
    return Checked(**base, **found)


def limited(
    found: Mapping[str, Any], comparison: Comparison, *, better: bool | None, results: Results
) -> dict[str, Any]:
    """How divergence and a shared pretraining limit a verdict."""
    verdict, reason = found["verdict"], found["reason"]
    if any(comparison.diverged):
        left, right = comparison.diverged
        reason += f"; the left side diverged at {left} of {len(results.seeds)} seeds, the right at {right}"
        if verdict != "undecided" and comparison.flattered(higher_is_better=better is not False):
            verdict = "undecided"
            reason += ", and what diverged is never better on the seeds that are left"
    if verdict != "undecided" and comparison.about == "methods" and comparison.test != "exact":
        shared = results.shared_models()
        reason += f"; given this {' and '.join(shared)} checkpoint" if shared else ""
    return {"verdict": verdict, "reason": reason}


def check(results: Results, raw: Mapping[str, Any] | str) -> Checked:
    """What the records say of one claim alone.

    Raises: ConfigError, UnknownNameError for a metric, factor or level that the records do not have
    """
    decisions = Decisions(results)
    asked = ask(decisions, raw)
    decisions.declare(FAMILY, [asked.contrast] if asked.contrast else [])
    return answer(decisions, asked)


def judge(claim: Claim, found: Comparison) -> dict[str, Any]:
    """Verdict, reason and interval: decided only about methods, by the simultaneous interval over seeds."""
    numbers = {"difference": found.difference, "low": found.low, "high": found.high}
    if found.about != "methods" or found.low is None or found.high is None:
        about = ""
        if found.low is not None and found.high is not None:
            said = decide(claim, found.low, found.high)
            about = f"; these checkpoints say {said} ({found.test}, {found.num_items} documents)"
        return {**numbers, "verdict": "undecided", "reason": found.reason + about}
    verdict = decide(claim, found.low, found.high)
    if found.test == "exact":
        return {**numbers, "verdict": verdict, "reason": f"the same in all {found.num_seeds} seeds"}
    rests = f"simultaneous 95 % interval over {found.num_seeds} seeds ({found.family} comparisons)"
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
        text = raw if isinstance(raw, str) else str(raw.get("says", ""))
        parse(text)
        try:
            found.append(ask(decisions, raw))
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
    decisions.declare(FAMILY, [a.contrast for a in found if isinstance(a, Asked) and a.contrast])
    return found


def answer_all(decisions: Decisions, asked: Sequence[Asked | Checked]) -> list[Checked]:
    """The answers, once every family is declared."""
    return [a if isinstance(a, Checked) else answer(decisions, a) for a in asked]


def check_all(results: Results, claims: Sequence[Mapping[str, Any] | str]) -> list[Checked]:
    """All claims of one report, without a table.

    Raises: ConfigError for a claim that does not follow the grammar
    """
    decisions = Decisions(results)
    asked = ask_all(decisions, claims)
    return answer_all(decisions, asked)
