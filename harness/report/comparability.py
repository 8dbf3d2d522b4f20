"""Comparability: rows may differ in the factors alone; what else drifted is refused or footnoted.

Config is what was asked for: a record whose controls differ from the others' is refused, as another
experiment's would be. Facts are what was measured: where they differ although the config does not, the
number stands with a footnote, unless a factor is bound to move that fact.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.axes import MODEL_AXES
from harness.report.contamination import contamination_notes
from harness.report.copies import one_a_place
from harness.report.drift import drifted_facts, thread_notes
from harness.report.levels import level_settings
from harness.report.numbers import counted
from harness.report.record import Record, label
from harness.report.tuning import tuning_marks, tuning_notes

NOT_CONTROLS = frozenset(
    {
        "seed",
        "seed_from",
        "question",
        "name",
        "factors",
        "baseline",
        "seeds",
        "zip",
        "cells",
        "exclude",
        "tune",
        "claims",
        "primary",
        "report",
        "reseed",
        "device",
        "tracker",
        "experiment",
        "harness",
        "hydra",
    }
)  # fmt: skip
"""Root keys of a config that do not determine what is compared."""


@dataclass(frozen=True, kw_only=True)
class Comparable:
    """Records that may stand in one table, and what a reader must know about them."""

    records: list[Record]
    """In their order; refused ones carry the outcome `refused` and its reason."""
    notes: list[str] = field(default_factory=list)
    """Sentences that hold for the whole table."""
    marks: dict[str, list[str]] = field(default_factory=dict)
    """Cell id -> footnotes on its numbers."""


def comparable(records: Sequence[Record]) -> Comparable:
    """Refuse config drift, show one record a place, footnote fact drift."""
    kept, notes = refuse(records)
    kept, repeated = one_a_place(kept)
    ok = [r for r in kept if r.status == "ok"]
    fact_notes, marks = drifted_facts(ok)
    for cell, texts in tuning_marks(ok).items():
        marks.setdefault(cell, []).extend(texts)
    of_table = (*fact_notes, *contamination_notes(ok), *thread_notes(ok))
    return Comparable(records=kept, notes=[*tuning_notes(ok), *notes, *repeated, *of_table], marks=marks)


def factor_keys(experiment: Mapping[str, Any]) -> dict[str, set[str]]:
    """Factor -> config keys that its levels set."""
    return {
        name: {key for overrides in levels.values() for key in overrides}
        for name, levels in level_settings(experiment).items()
    }


def free_roots(keys: set[str]) -> set[str]:
    """Config paths that keys may change: a chosen axis moves its whole node, a model its architecture too."""
    roots = {key.partition("@")[2] if "@" in key else key for key in keys}
    return roots | (set(MODEL_AXES) if "model" in roots else set())


def subtree(roots: Iterable[str]) -> tuple[str, ...]:
    """What `below` asks for."""
    return tuple(f"{root}." for root in roots)


def below(path: str, roots: tuple[str, ...]) -> bool:
    return f"{path}.".startswith(roots)


def controls(record: Record) -> dict[str, Any]:
    """All that must not vary over the rows: the config without factors, seeds and texts."""
    free: set[str] = set()
    for keys in factor_keys(record.experiment).values():
        free |= free_roots(keys)
    free |= set((record.experiment.get("tune") or {}).get("options") or ())
    roots = subtree(free)
    return {path: value for path, value in settings(record) if not below(path, roots)}


def settings(record: Record) -> Iterator[tuple[str, Any]]:
    """The config's leaves that determine what is compared."""
    for path, value in record.leaves:
        if path.partition(".")[0] not in NOT_CONTROLS:
            yield path, value


def freed(record: Record) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """What a factor frees, by the levels inside which it must not vary all the same."""
    tuned = subtree((record.experiment.get("tune") or {}).get("options") or ())
    roots = {name: subtree(free_roots(keys)) for name, keys in factor_keys(record.experiment).items()}
    levels = [(factor, level, roots.get(factor, ())) for factor, level in record.levels.items()]
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for path, value in settings(record):
        every = below(path, tuned)
        movers = tuple((factor, level) for factor, level, own in levels if every or below(path, own))
        if movers:
            groups.setdefault(movers, {})[path] = value
    yield from groups.items()


def refuse(records: Sequence[Record]) -> tuple[list[Record], list[str]]:
    """Records whose config drifted become `refused`, with the keys that did.

    The controls must be those of most records; what a factor frees must be that of most records of its level,
    so that a seed of `lora` with another rank is no seed of it. A refused record disappears where a record
    with the right config has its place.
    """
    drift: dict[int, str] = {}
    found = [controls(r) for r in records]
    for i, text in differing(found).items():
        drift[i] = text
    inside: dict[tuple[Any, ...], list[tuple[int, dict[str, Any]]]] = {}
    for i, record in enumerate(records):
        if i not in drift:
            for group, values in freed(record):
                inside.setdefault(group, []).append((i, values))
    for members in inside.values():
        for at, text in differing([values for _, values in members]).items():
            drift.setdefault(members[at][0], text)
    places = {r.place for i, r in enumerate(records) if i not in drift}
    kept, replaced, notes = [], [], []
    refused: dict[str, list[str]] = {}
    for i, record in enumerate(records):
        if i not in drift:
            kept.append(record)
        elif record.place in places:
            replaced.append(drift[i])
        else:
            outcome = {"status": "refused", "reason": drift[i], "stage": None, "step": None}
            kept.append(dataclasses.replace(record, data={**record.data, "outcome": outcome}, _cache={}))
            refused.setdefault(drift[i], []).append(record.where)
    for text, who in refused.items():
        more = f" and {len(who) - 2} more" if len(who) > 2 else ""
        notes.append(
            f"Refused, because the config differs from the other rows' ({text}): {'; '.join(who[:2])}{more}."
        )
    for text, n in Counter(replaced).items():
        notes.append(f"{counted(n, 'record')} of another configuration left out: {text}.")
    return kept, notes


def differing(found: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """Place -> how it differs from the most common one; of equally common ones the newest is right."""
    texts = [json.dumps(c, sort_keys=True, default=str) for c in found]
    counts = Counter(texts)
    if len(counts) < 2:
        return {}
    last = {text: i for i, text in enumerate(texts)}
    common = max(counts, key=lambda text: (counts[text], last[text]))
    reference = found[last[common]]
    return {i: describe(own, reference) for i, own in enumerate(found) if texts[i] != common}


def describe(own: Mapping[str, Any], reference: Mapping[str, Any], limit: int = 4) -> str:
    """`pretrain.learning_rate is 0.001, elsewhere 0.003`, for the first few keys that differ."""
    keys = [k for k in {**reference, **own} if own.get(k, MISSING) != reference.get(k, MISSING)]
    lines = [f"{k} is {shown(own, k)}, elsewhere {shown(reference, k)}" for k in keys[:limit]]
    more = len(keys) - limit
    return "; ".join(lines) + (f"; and {more} more keys" if more > 0 else "")


MISSING = object()


def shown(values: Mapping[str, Any], key: str) -> str:
    return label(values[key]) if key in values else "absent"
