"""Coverage first: a half-done sweep is already a balanced table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from harness.plan.plan import PlannedCell


def coverage_first(cells: Sequence[PlannedCell]) -> list[PlannedCell]:
    """Cells so that every prefix holds the levels of every factor about equally often, seed by seed."""
    ordered: list[PlannedCell] = []
    for seed in dict.fromkeys(cell.seed for cell in cells):
        seen: Counter[tuple[str, str]] = Counter()
        waiting = [cell for cell in cells if cell.seed == seed]
        while waiting:
            best = min(waiting, key=lambda cell: sum(seen[level] for level in cell.levels.items()))
            waiting.remove(best)
            seen.update(best.levels.items())
            ordered.append(best)
    return ordered
