"""What an experiment states: the form of its part of a config, in YAML as in records."""

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

from harness.errors import ConfigError

Factor = list[Any] | dict[str, list[Any] | dict[str, Any] | None]
"""Values of the key of its name, `{key: [values]}`, or `{label: {key: value}}` where null leaves one out."""


class Claim(TypedDict):
    """What the literature says, in the grammar of `harness.plan.claims`, and who says it."""

    says: str
    source: NotRequired[str]
    finding: NotRequired[str]
    answers: NotRequired[bool]


class Tune(TypedDict, total=False):
    """What of a `tune:` block names options and factors; `harness.plan.trials.Tune` types the rest."""

    by: list[str] | None
    space: dict[str, Any]
    methods: dict[str, dict[str, dict[str, Any]]]
    options: list[str]
    """Those that trials vary; records have it."""


class Stated(TypedDict, total=False):
    """The fields of `harness.compose.Experiment`."""

    name: str
    question: str
    factors: dict[str, Factor]
    baseline: dict[str, Any]
    seeds: list[int]
    reseed: str
    zip: list[str | list[str]]
    cells: list[dict[str, Any]]
    exclude: list[dict[str, Any]]
    tune: Tune | None
    primary: list[str]
    claims: list[str | Claim]
    report: str | dict[str, Any] | None


def levels_of(name: str, factor: Factor) -> list[tuple[Any, Mapping[str, Any]]]:
    """The levels of a factor, each with the keys it sets.

    Raises: ConfigError where it has none, or a label stands for no keys
    """
    where, kept = name, factor
    if isinstance(kept, Mapping):
        kept = {label: keys for label, keys in kept.items() if keys is not None}
        (key, values), *others = kept.items() or [(name, None)]
        if not others and isinstance(values, list | tuple):
            where, kept = key, values
    if not kept:
        raise ConfigError(
            f"factors.{name}={factor!r}: give [values], {{key: [values]}}, or {{label: {{key: value}}}}"
        )
    if not isinstance(kept, Mapping):
        return [(value, {where: value}) for value in kept]
    found: list[tuple[Any, Mapping[str, Any]]] = []
    for label, keys in kept.items():
        if not isinstance(keys, Mapping):
            raise ConfigError(
                f"factors.{name}.{label}={keys!r}: of several labels each stands for {{key: value, ...}}"
            )
        found.append((label, keys))
    return found
