"""What the levels of an experiment set, and which learning rates nobody tuned."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from harness.report.frames import Levels, Results
from harness.report.layout import Layout
from harness.report.record import Record, label
from harness.report.tuning import shown
from harness.stated import levels_of

TITLE = "What the levels set"
RATE = "learning_rate"
Settings = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Factor -> level -> config key -> value."""


def level_settings(experiment: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """Factor -> level -> the config keys it sets, with their values."""
    return {
        str(name): {
            label(level): {plain_key(str(key)): value for key, value in keys.items()}
            for level, keys in levels_of(name, factor)
        }
        for name, factor in experiment.get("factors", {}).items()
    }


def plain_key(key: str) -> str:
    return key.lstrip("+~").replace("/", ".")


def as_text(results: Results, layout: Layout) -> tuple[list[str], list[list[str]], list[str]] | None:
    """Heads, rows and notes; None where every level sets what it is called."""
    settings = level_settings(results.all_records()[-1].experiment)
    rows = [
        [layout.text(factor), layout.text(level), ", ".join(f"{k} = {shown(v)}" for k, v in sets.items())]
        for factor, levels in settings.items()
        for level, sets in levels.items()
    ]
    plain = all(
        len(sets) == 1 and label(next(iter(sets.values()))) == level
        for levels in settings.values()
        for level, sets in levels.items()
    )
    return None if plain or not rows else (["factor", "level", "sets"], rows, [])


def rate_notes(records: Sequence[Record]) -> list[str]:
    """The learning rates of stages that ran and that no search chose: a sentence for the whole table."""
    found: dict[str, dict[str, list[Record]]] = {}
    for record in records:
        for path, value in rates(record):
            found.setdefault(path, {}).setdefault(shown(value), []).append(record)
    if not found:
        return []
    parts = []
    for path, values in found.items():
        common = max(values, key=lambda value: len(values[value]))
        others = [f"{value} for {who(own, values)}" for value, own in values.items() if value != common]
        parts.append(f"{path} = {common}" + (f" ({'; '.join(others)})" if others else ""))
    return [f"Set by hand, not tuned for each method: {'; '.join(parts)}. Another rate may order them anew."]


def who(own: Sequence[Record], groups: Mapping[str, Sequence[Record]]) -> str:
    """Some records in words: by the levels of one factor that no other group has, else one by one."""
    others = [record for group in groups.values() if group is not own for record in group]
    for factor in own[0].levels:
        levels = dict.fromkeys(record.levels[factor] for record in own)
        if not any(record.levels.get(factor) in levels for record in others):
            return ", ".join(levels)
    return "; ".join(dict.fromkeys(", ".join(record.levels.values()) for record in own))


def limits_of_tuning(results: Results, configurations: Collection[Levels]) -> str:
    """The rates that a verdict holds at, as `at ...`: where nobody tuned them, or tuning ends there."""
    if set_by_hand(results, configurations):
        return "at learning rates set by hand"
    records = [record for levels in configurations for record in results.records[levels].values()]
    edge = any((record.data.get("tune") or {}).get("edge") for record in records)
    return "at a value on the edge of what was tried" if edge else ""


def set_by_hand(results: Results, configurations: Iterable[Levels]) -> bool:
    """Whether configurations differ by a training whose learning rate nobody tuned."""
    runs: dict[tuple[str, int], set[str]] = {}
    for levels in configurations:
        for seed, record in results.records[levels].items():
            trained = {path.partition(".")[0] for path, _ in rates(record)}
            for stage in record.data["stages"]:
                if stage["stage"] in trained:
                    runs.setdefault((stage["stage"], seed), set()).add(str(stage["key"]))
    return any(len(keys) > 1 for keys in runs.values())


def rates(record: Record) -> Iterator[tuple[str, float]]:
    """`<stage>.learning_rate` of each stage of a record that took steps, where it was not tuned."""
    chosen = (record.data.get("tune") or {}).get("chosen") or {}
    facts = record.data.get("facts", {})
    for stage, options in record.data["config"].items():
        path = f"{stage}.{RATE}"
        given = isinstance(options, dict) and options.get(RATE) is not None
        if given and path not in chosen and (facts.get(stage) or {}).get("steps"):
            yield path, options[RATE]
