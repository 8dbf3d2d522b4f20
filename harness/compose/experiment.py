"""The part of a config that states the question; it decides which cells there are, not what one yields."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from harness.errors import ConfigError
from harness.forms import misfit
from harness.stated import Stated


@dataclass(kw_only=True)
class Experiment:
    """One YAML in conf/experiment: what varies, against what, and what the literature claims.

    Raises: ConfigError naming the place that does not have the form of `harness.stated`
    """

    name: str = ""
    """Name of its records and report; the file's name where it states none."""
    question: str = ""
    """The question in one sentence."""
    factors: dict[str, Any] = field(default_factory=dict)
    """What varies: a name to values of one key, or to labels with override sets."""
    baseline: dict[str, Any] = field(default_factory=dict)
    """The level of each factor that the others are compared with."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """Seeds of every cell; at least 3 for claims about methods."""
    reseed: str = "touched"
    """What seeds vary: `touched` (the first stage that a factor touches and all after it), a stage (it and
    all after it), or `all`."""
    zip: list[Any] = field(default_factory=list)
    """Factors that move together instead of being crossed."""
    cells: list[Any] = field(default_factory=list)
    """Explicit cells instead of a product; factors that none of them names are crossed with them."""
    exclude: list[Any] = field(default_factory=list)
    """Combinations of levels to leave out."""
    tune: dict[str, Any] | None = field(default_factory=dict)
    """The same budget of trials for every method, on validation data; null or empty = none."""
    primary: list[str] = field(default_factory=list)
    """Metrics to decide on; others get intervals and no verdict. Every measured quality where empty."""
    claims: list[Any] = field(default_factory=list)
    """What the literature says, to be confirmed or refuted: `{source, says}`."""
    report: Any = None
    """The table this experiment fills (a name in conf/report, or its content)."""

    def __post_init__(self) -> None:
        wrong = misfit(vars(self), Stated)
        if wrong:
            name = re.match(r"\w+", wrong)
            assert name is not None
            raise ConfigError(f"{wrong}; write e.g. {EXAMPLES[name[0]]}")


EXAMPLES = {
    "factors": "factors: {attention: [full, multi_query]}",
    "baseline": "baseline: {attention: full}",
    "seeds": "seeds: [0, 1, 2]",
    "zip": "zip: [attention, optimizer]",
    "cells": "cells: [{attention: full, optimizer: lion}]",
    "exclude": "exclude: [{attention: full, optimizer: lion}]",
    "tune": "tune: {trials: 4, space: {pretrain.learning_rate: [1e-3, 1e-2]}}",
    "claims": "claims: [{says: 'bits_per_byte[attention=full] < bits_per_byte[attention=linear]'}]",
    "primary": "primary: [bits_per_byte]",
    "report": "report: attention",
    "name": "name: first",
    "question": "question: 'Which attention is best?'",
    "reseed": "reseed: touched",
}
"""A right one of each field."""
