"""Differences as they are printed: with a sign, and as many digits as their interval carries."""

from __future__ import annotations

import math


def difference_text(difference: float, low: float | None = None, high: float | None = None) -> str:
    """`+0.012 (0.004 to 0.020)`; an exact one, whose interval is itself, stands alone."""
    if low is None or high is None or high <= low:
        return "0" if difference == 0 else f"{difference:+.3g}"
    # Two digits of half the interval's width, as numbers of a table have.
    places = max(0, 1 - math.floor(math.log10((high - low) / 2)))
    return f"{rounded(difference, places, '+')} ({rounded(low, places)} to {rounded(high, places)})"


def rounded(value: float, places: int, sign: str = "") -> str:
    """So many decimals, and no sign on a zero."""
    text = f"{value:{sign},.{places}f}"
    return text.lstrip("+-") if float(text.replace(",", "")) == 0 else text
