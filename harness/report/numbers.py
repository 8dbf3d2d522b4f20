"""Differences as they are printed: with a sign, and as many digits as their interval carries."""

from __future__ import annotations

import math
from collections.abc import Sequence

MORE_PLACES = 9
"""How many more decimals an end may need to stay on its side of a limit; beyond, it is the limit."""


def difference_text(
    difference: float, low: float | None = None, high: float | None = None, *, limits: Sequence[float] = ()
) -> str:
    """`+0.012 (0.004 to 0.020)`; an exact one, whose interval is itself, stands alone.

    No end is rounded onto or across 0 or a limit, so that what is printed says what was decided.
    """
    if low is None or high is None or high <= low:
        return "0" if difference == 0 else f"{difference:+{',.0f' if abs(difference) >= 1000 else '.3g'}}"
    # Two digits of half the interval's width, as numbers of a table have.
    places = max(0, 1 - math.floor(math.log10((high - low) / 2)))
    ends = [rounded(end, places_beside(end, places, (0.0, *limits))) for end in (low, high)]
    return f"{rounded(difference, places, '+')} ({ends[0]} to {ends[1]})"


def places_beside(value: float, places: int, limits: Sequence[float]) -> int:
    """The decimals, from `places` on, at which a value stays on its side of all limits."""
    for more in range(places, places + MORE_PLACES):
        shown = round(value, more)
        if all((shown > limit) == (value > limit) and (shown < limit) == (value < limit) for limit in limits):
            return more
    return places


def rounded(value: float, places: int, sign: str = "") -> str:
    """So many decimals, and no sign on a zero."""
    text = f"{value:{sign},.{places}f}"
    return text.lstrip("+-") if float(text.replace(",", "")) == 0 else text


def comparisons(*sizes: int) -> str:
    """`1 comparison`, `12 comparisons`, `4 to 12 comparisons`: sizes of families."""
    few, many = min(sizes), max(sizes)
    return f"{few} to {many} comparisons" if few < many else counted(few, "comparison")


def counted(number: int, what: str) -> str:
    """`1 configuration`, `12 configurations`."""
    return f"{number} {what}{'s' * (number != 1)}"
