"""Options of methods other than their defaults, as a user may type them: drawn from what a Config states."""

from __future__ import annotations

import enum
import random
from dataclasses import MISSING, Field, fields
from typing import Any

from harness.method import Method
from harness.plan.grammar import value_text

LIMIT = 4096
"""Integers stay below: a toy is to be run."""


def drawn_option(method: type[Method], draw: random.Random) -> tuple[str, str] | None:
    """(option, value as it is typed) of one of a method's options; None where it has none to draw from."""
    names = draw.sample([f.name for f in fields(method.Config)], len(fields(method.Config)))
    known = {f.name: f for f in fields(method.Config)}
    for name in names:
        values = other_values(known[name])
        if values:
            return name, value_text(draw.choice(values))
    return None


def other_values(field: Field[Any]) -> list[Any]:
    """Values near an option's default, and the ends of what it may be; none of a text, a list or a path."""
    default = field.default
    if field.metadata or default is MISSING or default is None:
        return []
    if isinstance(default, bool):
        return [not default]
    if isinstance(default, enum.Enum):
        return [member for member in type(default) if member is not default]
    if isinstance(default, int):
        near = {default // 2, default + 1, min(2 * default, LIMIT), 0, 1}
        return sorted(near - {default})
    if isinstance(default, float):
        return sorted({default / 2, default * 2, 0.0, 1.0} - {default})
    return []
