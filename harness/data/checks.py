"""Machine-checkable constraints on an answer, written as {name: parameter}."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.errors import DataError, UnknownNameError


def _words(answer: str) -> list[str]:
    return answer.split()


def _texts(parameter: Any) -> Sequence[str]:
    return [parameter] if isinstance(parameter, str) else parameter


CHECKS: dict[str, Callable[[str, Any], bool]] = {
    "exact": lambda answer, text: answer == text,
    "one_of": lambda answer, texts: answer in texts,
    "contains": lambda answer, texts: all(text in answer for text in _texts(texts)),
    "excludes": lambda answer, texts: not any(text in answer for text in _texts(texts)),
    "starts_with": lambda answer, text: answer.startswith(text),
    "ends_with": lambda answer, text: answer.endswith(text),
    "num_words": lambda answer, number: len(_words(answer)) == number,
    "min_words": lambda answer, number: len(_words(answer)) >= number,
    "max_words": lambda answer, number: len(_words(answer)) <= number,
    "num_lines": lambda answer, number: len(answer.splitlines()) == number,
    "words_from": lambda answer, words: set(_words(answer)) <= set(words),
    "distinct_words": lambda answer, wanted: (len(set(_words(answer))) == len(_words(answer))) == wanted,
    "case": lambda answer, case: answer == (answer.upper() if case == "upper" else answer.lower()),
}
"""Constraint -> whether an answer (stripped of outer whitespace) meets it with the given parameter."""


def violated(answer: str, checks: Mapping[str, Any]) -> list[str]:
    """Names of the constraints that an answer breaks, in the order given.

    Raises: UnknownNameError on a constraint that does not exist
    """
    answer = answer.strip()
    for name in checks:
        if name not in CHECKS:
            raise UnknownNameError(what="check", name=name, known=CHECKS)
    return [name for name, parameter in checks.items() if not CHECKS[name](answer, parameter)]


def check(answer: str, checks: Mapping[str, Any]) -> bool:
    """Whether an answer meets every constraint.

    Raises: DataError where there are none
    """
    _some(checks)
    return not violated(answer, checks)


def share_met(answer: str, checks: Mapping[str, Any]) -> float:
    """Share of the constraints that an answer meets.

    Raises: DataError where there are none, since nothing is then known of the answer
    """
    _some(checks)
    return 1.0 - len(violated(answer, checks)) / len(checks)


def _some(checks: Mapping[str, Any]) -> None:
    if not checks:
        raise DataError("a prompt has no machine-checkable constraints, by which its answer could be judged")
