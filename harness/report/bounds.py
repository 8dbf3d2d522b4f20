"""Where a number says little: at a task's ceiling or floor, at chance, or worse than uniform bytes."""

from __future__ import annotations

from harness.report.frames import Results
from harness.report.statistics import MIN_ITEMS, Estimate

UNIFORM_BITS = 8.0
"""Bits a byte costs a model that knows nothing: log2(256)."""
BY_CHOICE = ("acc", "acc_norm")
"""Metrics of tasks that ask for the likeliest of some choices."""


def remarks(results: Results, metric: str, found: Estimate) -> list[str]:
    """Sentences on one number; none where it stands clear of its bounds."""
    if results.metrics[metric].unit == "bits/byte":
        worse = found.mean > UNIFORM_BITS
        return [f"worse than uniform over bytes ({UNIFORM_BITS:.0f} bits per byte)"] if worse else []
    wanted = results.metrics[metric].higher_is_better is True
    if not wanted or not results.is_share(metric) or results.num_items(metric) < MIN_ITEMS:
        return []
    # Less than one item a run away from the end; items that are shares themselves, of tokens say, have none.
    step = results.resolution(metric)
    if step and found.mean < step:
        return ["at the floor: not one item right on average, so nothing worse could show"]
    if step and found.mean > 1 - step:
        return ["at the ceiling: not one item wrong on average, so nothing better could show"]
    k = choices(results, metric)
    if k is None or found.low is None or found.high is None or found.low > 1 / k:
        return []
    if found.high < 1 / k:
        return [f"below chance (1 of {k} choices)"]
    return [f"not distinguishable from chance (1 of {k} choices)"]


def choices(results: Results, metric: str) -> int | None:
    """Among how many answers each item of a task chooses; None where they vary, or it generates text."""
    task, _, name = metric.rpartition(".")
    if name not in BY_CHOICE:
        return None
    n = results.num_items(metric)
    asked = {requests / n for requests in results.requests.get(task, ())} if n else set()
    (each,) = asked if len(asked) == 1 else (0.0,)
    return int(each) if each >= 2 and each.is_integer() else None
