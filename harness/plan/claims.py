"""The grammar of claims: what the literature says, as an experiment states it.

    claim  = side relation side [offset]
    side   = term | "(" term "-" term ")" [ levels ]
    term   = metric [ levels ]
    levels = "[" factor "=" level { "," factor "=" level } "]"
    relation = "<" | "<=" | "=" | ">=" | ">"
    offset = ("+" | "-" | "+-") number

`(a - b)[x] < (a - b)[y]` compares differences: whether an effect depends on another factor. `+- number`
after `=` is a tolerance: without one, equality can be refuted but never confirmed. Names that hold
operators, brackets or commas stand in quotes of either kind, a backslash before what ends them:
`'["language", "pii"]'`. A term is averaged over the factors it does not name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness.errors import ConfigError

TOKEN = re.compile(
    r"""\s*(?:
      (?P<relation><=|>=|<|>|=)
    | (?P<offset>\+-|\+|-(?=\s*[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?\s*$))
    | (?P<minus>-)
    | (?P<bracket>[\[\],])
    | (?P<paren>[()])
    | (?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<number>[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?(?=\s*$))
    | (?P<word>[^\s\[\],=<>"'+()][^\[\],=<>"+()]*?)(?=\s+-|\s*[\[\],=<>"+()]|\s*$)
    )""",
    re.VERBOSE | re.DOTALL,
)
INSIDE = re.compile(r"""\s*([^\s\[\],="'][^\],="]*)""")
"""A level, which may hold what is an operator outside of brackets: `lr=1e-3`, `model=a-b`."""


def written(name: str, *, inside: bool) -> str:
    """A name as a claim holds it, in or before brackets: quoted where it would be read otherwise."""
    found = (INSIDE if inside else TOKEN).match(name)
    whole = found is not None and name == name.strip() and found.end() == len(name)
    bare = whole and (inside or (found and found.lastgroup == "word"))
    quote = "'" if '"' in name else '"'
    escaped = re.sub(rf"[\\{quote}]", r"\\\g<0>", name)
    return name if bare else f"{quote}{escaped}{quote}"


def exactly(number: float) -> str:
    """A number in as few digits as give it back."""
    return next(text for text in (f"{number:g}", repr(number)) if float(text) == number)


@dataclass(frozen=True, kw_only=True)
class Term:
    """A metric at some levels, averaged over the factors not named."""

    metric: str
    where: Mapping[str, str]

    def __str__(self) -> str:
        pairs = [[written(name, inside=True) for name in pair] for pair in self.where.items()]
        inside = ", ".join(map("=".join, pairs))
        return written(self.metric, inside=False) + (f"[{inside}]" if inside else "")

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
        sign = f" +- {exactly(self.tolerance)}" if self.tolerance else ""
        sign = f" {'+' if self.offset > 0 else '-'} {exactly(abs(self.offset))}" if self.offset else sign
        return f"{self.left} {self.relation} {self.right}{sign}"

    def terms(self) -> list[tuple[float, Term]]:
        """Left minus right."""
        return [*self.left.terms(1.0), *self.right.terms(-1.0)]


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
        inside = INSIDE.match(text, at) if depth else None
        found = None if inside else TOKEN.match(text, at)
        if inside:
            at = inside.end()
            yield "word", inside[1].strip()
        elif found and found.lastgroup:
            at = found.end()
            value = found[found.lastgroup]
            depth += {"[": 1, "]": -1}.get(value, 0) if found.lastgroup == "bracket" else 0
            quoted = found.lastgroup == "quoted"
            yield (
                found.lastgroup,
                re.sub(r"\\(.)", r"\1", value[1:-1], flags=re.DOTALL) if quoted else value.strip(),
            )
        else:
            raise ConfigError(f"Claim '{text}': cannot read '{text[at:].strip()}'")
    yield "end", ""


def parse(text: str) -> Claim:
    """A claim from its text.

    Raises: ConfigError that shows the form
    """
    return Parser(text).claim()


def stated(raw: Mapping[str, Any] | str) -> dict[str, Any]:
    """A claim's entry as a mapping of `says`, `source`, `finding` and `answers`.

    Raises: ConfigError for anything else
    """
    given = {"says": raw} if isinstance(raw, str) else dict(raw) if isinstance(raw, Mapping) else {}
    unknown = set(given) - {"says", "source", "finding", "answers"}
    if unknown or "says" not in given:
        raise ConfigError(
            f"claims: {raw} must have `says` and may have `source`, `finding` and `answers`, no more"
        )
    return given
