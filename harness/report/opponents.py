"""Which records are measured against themselves: a win rate of 1/2 or divergence of 0 says nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.report.record import Record, label

CELL = "cell:"
"""How an option names another cell of the sweep: by its overrides."""


def against_itself(record: Record, metric: str) -> bool:
    """Whether the evaluator of a metric compares this record's model with that of the same configuration."""
    from harness.plan.grammar import split_overrides

    options = (record.data["config"].get("evaluator") or {}).get(metric.partition(".")[0])
    if not isinstance(options, Mapping):
        return False
    named = [v for v in options.values() if isinstance(v, str) and v.startswith(CELL)]
    return any(
        all(
            chosen(record.data["config"], *override.split("=", 1))
            for override in split_overrides(value.removeprefix(CELL))
        )
        for value in named
    )


def opponent(record: Record, metric: str) -> str:
    """Whom the evaluator of a metric sets a record's model against, as its options name it."""
    options = (record.data["config"].get("evaluator") or {}).get(metric.partition(".")[0])
    if not isinstance(options, Mapping):
        return ""
    named = (options.get(name) for name in ("baseline", "baseline_answers"))
    return next((str(name) for name in named if name), f"answers of {options.get('prompts', '')}")


def chosen(config: Mapping[str, Any], path: str, value: str) -> bool:
    """Whether a config has an override's value; an axis is compared by its method."""
    node: Any = config
    for part in path.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    found = node.get("method") if isinstance(node, Mapping) else node
    return label(found) == value
