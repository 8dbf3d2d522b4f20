"""Differences as they are printed: with a sign, and as many digits as their interval carries."""

from __future__ import annotations

import math
from collections.abc import Sequence

MORE_PLACES = 9
"""How many more decimals an end may need to stay on its side of a limit; beyond, it is the limit."""
PLAIN = (-5, 10)
"""Powers of ten, the last left out, of numbers that are written in plain digits."""


def power_of(largest: float, *, exact: bool = False) -> int:
    """The power of ten that numbers up to `largest` are written with; 0 where plain digits can be read.

    Exact counts keep their digits as long as floats have them.
    """
    if not largest or not math.isfinite(largest):
        return 0
    power = math.floor(math.log10(largest))
    return power if power >= (15 if exact else PLAIN[1]) or power < PLAIN[0] else 0


def difference_text(
    difference: float, low: float | None = None, high: float | None = None, *, limits: Sequence[float] = ()
) -> str:
    """`+0.012 (0.004 to 0.020)`; an exact one, whose interval is itself, stands alone.

    No end is rounded onto or across 0 or a limit, so that what is printed says what was decided.
    """
    if low is None or high is None or high <= low:
        whole = abs(difference) >= 1000 and not power_of(abs(difference), exact=True)
        return "0" if difference == 0 else f"{difference:+{',.0f' if whole else '.3g'}}"
    power = power_of(max(abs(low), abs(high)))
    difference, low, high, *limits = (x / 10.0**power for x in (difference, low, high, *limits))
    unit = f"e{power:+03d}" if power else ""
    # Two digits of half the interval's width, as numbers of a table have.
    places = max(0, 1 - math.floor(math.log10((high - low) / 2)))
    ends = [rounded(end, places_beside(end, places, (0.0, *limits))) + unit for end in (low, high)]
    return f"{rounded(difference, places, '+')}{unit} ({ends[0]} to {ends[1]})"


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
