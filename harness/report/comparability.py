"""Comparability: rows may differ in the factors alone; what else drifted is refused or footnoted.

Config is what was asked for: a record whose controls differ from the others' is refused, as another
experiment's would be. Facts are what was measured: where they differ although the config does not, the
number stands with a footnote, unless a factor is bound to move that fact.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.axes import MODEL_AXES
from harness.report.records import Record, flatten, label
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
COUNTS = frozenset(
    {
        "tokens",
        "bytes",
        "steps",
        "sequences",
        "epochs",
        "documents",
        "num_tokens",
        "num_bytes",
        "num_documents",
    }
)  # fmt: skip
"""Facts that count what a stage saw; 1 % apart is the same (documents end where they end)."""
EXACT = frozenset(
    {
        "batch_size",
        "effective_batch",
        "sequence_length",
        "max_length",
        "dtype",
        "device",
        "judge",
        "against",
        "num_fewshot",
        "task_versions",
        "template",
        "prompt_tokens",
        "new_tokens",
        "hardware",
        "threads",
        "limit",
    }
)  # fmt: skip
"""Facts that must agree exactly."""
EXACT_ENDINGS = ("sha256", "_hash", "version", "truncated", "truncated_contexts")
HASHES = ("sha256", "_hash")
TOLERANCE = 0.01
VERSIONS = ("versions", "git", "harness", "python", "platform")
"""Provenance that tells versions apart; named for the whole table."""

AXIS_FACTS: Mapping[str, frozenset[str]] = {
    "corpus": COUNTS | {"sha256"},
    "filter": COUNTS | {"sha256"},
    "tokenizer": COUNTS - {"bytes"},
    "mixture": COUNTS,
    "curriculum": COUNTS | {"sequence_length"},
    "objective": COUNTS,
    "instruction": COUNTS | {"template"},
    "instruction_strategy": COUNTS,
    "alignment": COUNTS,
    "quantizer": frozenset({"calibration_sha256"}),
    "batch_schedule": COUNTS | {"effective_batch"},
    "precision": frozenset({"dtype"}),
    "context": frozenset({"max_length", "sequence_length", "truncated", "truncated_contexts"}),
    "judge": frozenset({"judge"}),
}
"""Facts that choosing another method of an axis is bound to move; its methods' `changes` count too."""
OPTION_FACTS: Mapping[str, frozenset[str]] = {
    "budget": COUNTS,
    "batch_size": COUNTS | {"batch_size", "effective_batch"},
    "sequence_length": COUNTS | {"sequence_length"},
    "max_length": frozenset({"max_length"}),
    "import": frozenset(),
    "threads": frozenset({"threads"}),
}
"""Facts that a stage's option is bound to move."""


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
    """Refuse config drift, footnote fact drift."""
    kept, notes = refuse(records)
    ok = [r for r in kept if r.status == "ok"]
    fact_notes, marks = drifted_facts(ok)
    for cell, texts in tuning_marks(ok).items():
        marks.setdefault(cell, []).extend(texts)
    return Comparable(
        records=kept, notes=[*tuning_notes(ok), *notes, *fact_notes, *thread_notes(ok)], marks=marks
    )


def factor_keys(experiment: Mapping[str, Any]) -> dict[str, set[str]]:
    """Factor -> config keys that its levels set."""
    found: dict[str, set[str]] = {}
    for name, spec in (experiment.get("factors") or {}).items():
        if not isinstance(spec, Mapping):
            found[name] = {name}
            continue
        (key, first), *rest = spec.items()
        if not rest and isinstance(first, list | tuple):
            found[name] = {str(key)}
        else:
            found[name] = {str(k) for overrides in spec.values() for k in overrides}
    return {name: {k.lstrip("+~").replace("/", ".") for k in keys} for name, keys in found.items()}


def free_roots(keys: set[str]) -> set[str]:
    """Config paths that keys may change: a chosen axis moves its whole node, a model its architecture too."""
    roots = {key.partition("@")[2] if "@" in key else key for key in keys}
    return roots | (set(MODEL_AXES) if "model" in roots else set())


def controls(record: Record) -> dict[str, Any]:
    """All that must not vary over the rows: the config without factors, seeds and texts."""
    free: set[str] = set()
    for keys in factor_keys(record.experiment).values():
        free |= free_roots(keys)
    free |= set((record.experiment.get("tune") or {}).get("options") or ())
    return {
        path: value
        for path, value in flatten(record.data["config"])
        if path.partition(".")[0] not in NOT_CONTROLS
        and not any(path == root or path.startswith(root + ".") for root in free)
    }


def refuse(records: Sequence[Record]) -> tuple[list[Record], list[str]]:
    """Records whose controls differ from those of most records become `refused`, with the keys that do.

    A refused record disappears where a record with the right controls has its place.
    """
    found = [controls(r) for r in records]
    texts = [json.dumps(c, sort_keys=True, default=str) for c in found]
    counts = Counter(texts)
    # Most records decide; of equals the newest do.
    common = max(counts, key=lambda text: (counts[text], len(texts) - 1 - texts[::-1].index(text)))
    reference = found[texts.index(common)]
    places = {place(r) for r, text in zip(records, texts, strict=True) if text == common}
    kept, replaced, notes = [], [], []
    refused: dict[str, list[str]] = {}
    for record, text, own in zip(records, texts, found, strict=True):
        if text == common:
            kept.append(record)
            continue
        drift = describe(own, reference)
        if place(record) in places:
            replaced.append(drift)
        else:
            outcome = {"status": "refused", "reason": drift, "stage": None, "step": None}
            kept.append(dataclasses.replace(record, data={**record.data, "outcome": outcome}, _cache={}))
            refused.setdefault(drift, []).append(where(record))
    for drift, who in refused.items():
        more = f" and {len(who) - 2} more" if len(who) > 2 else ""
        notes.append(
            f"Refused, because controls differ from the other rows' ({drift}): {'; '.join(who[:2])}{more}."
        )
    for drift, n in Counter(replaced).items():
        notes.append(f"{n} record{'s' * (n > 1)} of another configuration left out: {drift}.")
    return kept, notes


def place(record: Record) -> tuple[Any, ...]:
    return tuple(sorted(record.levels.items())), record.seed


def where(record: Record) -> str:
    return ", ".join([*(f"{f} = {v}" for f, v in record.levels.items()), f"seed {record.seed}"])


def describe(own: Mapping[str, Any], reference: Mapping[str, Any], limit: int = 4) -> str:
    """`pretrain.learning_rate is 0.001, elsewhere 0.003`, for the first few keys that differ."""
    keys = [k for k in {**reference, **own} if own.get(k, MISSING) != reference.get(k, MISSING)]
    lines = [f"{k} is {shown(own, k)}, elsewhere {shown(reference, k)}" for k in keys[:limit]]
    more = len(keys) - limit
    return "; ".join(lines) + (f"; and {more} more keys" if more > 0 else "")


MISSING = object()


def shown(values: Mapping[str, Any], key: str) -> str:
    return label(values[key]) if key in values else "absent"


def is_controlled(path: str) -> bool:
    """Whether comparability rests on a fact; counts by split and versions by task are controlled too."""
    parts = path.split(".")[1:]
    return not (COUNTS | EXACT).isdisjoint(parts) or parts[-1].endswith(EXACT_ENDINGS)


def drifted_facts(records: Sequence[Record]) -> tuple[list[str], dict[str, list[str]]]:
    """Footnotes on the cells whose measured facts differ from most others', and notes on code versions."""
    notes: list[str] = []
    marks: dict[str, list[str]] = {}
    if not records:
        return notes, marks
    columns: dict[str, dict[str, Any]] = {}
    for record in records:
        for name, value in record_facts(record):
            columns.setdefault(name, {})[record.cell] = value
    by_cell = {r.cell: r for r in records}
    keys = factor_keys(records[-1].experiment)
    for name, values in columns.items():
        for group in groups_of(name, values, by_cell, keys):
            if not agree(name, list(group.values())):
                footnote(name, group, notes, marks)
    return notes, marks


def footnote(name: str, values: Mapping[str, Any], notes: list[str], marks: dict[str, list[str]]) -> None:
    """Say on which cells a fact differs from most others', or for the whole table where most differ."""
    texts = {cell: text_of(value) for cell, value in values.items()}
    counts = Counter(texts.values())
    common, n = counts.most_common(1)[0]
    if name.partition(".")[0] in VERSIONS:
        listed = ", ".join(f"{text} (records: {count})" for text, count in counts.most_common(4))
        notes.append(f"Records of different versions: {name} is {listed}.")
    elif n == 1 or len(counts) > 4:
        numbers = [v for v in values.values() if isinstance(v, int | float)]
        span = f" from {text_of(min(numbers))} to {text_of(max(numbers))}" if numbers else ""
        notes.append(f"Measured {name} varies{span} over {len(values)} records.")
    else:
        for cell, text in texts.items():
            if text != common:
                marks.setdefault(cell, []).append(f"measured {name} is {text}, elsewhere {common}")


def record_facts(record: Record) -> Iterator[tuple[str, Any]]:
    """Controlled facts and provenance of a record as (dotted name, value)."""
    for stage, found in record.data.get("facts", {}).items():
        for path, value in flatten(found, stage):
            if is_controlled(path):
                yield path, value
    for stage, number in threads_of(record).items():
        yield f"{stage}.threads", number
    provenance = record.data.get("provenance", {})
    for kind in ("harness", "python", "platform"):
        if provenance.get(kind):
            yield f"{kind}.version", provenance[kind]
    if (provenance.get("git") or {}).get("commit"):
        yield "git.commit", provenance["git"]["commit"][:12]
    for library, version in (provenance.get("versions") or {}).items():
        yield f"versions.{library}", version
    if provenance.get("hardware"):
        yield "hardware", json.dumps(provenance["hardware"], sort_keys=True)


def threads_of(record: Record) -> dict[str, int]:
    """Processor threads by stage; nothing of records that do not say."""
    stages = record.data.get("stages") or ()
    return {stage["stage"]: stage["threads"] for stage in stages if stage.get("threads")}


def thread_notes(records: Sequence[Record]) -> list[str]:
    """How many threads computed what: sums depend on how they are split."""
    found: dict[int, dict[str, None]] = {}
    for record in records:
        for stage, number in threads_of(record).items():
            found.setdefault(number, {})[stage] = None
    parts = [
        f"{number} thread{'s' * (number > 1)} ({', '.join(stages)})"
        for number, stages in sorted(found.items())
    ]
    return [f"Computed with {' and '.join(parts)}."] if parts else []


def text_of(value: Any) -> str:
    if isinstance(value, str):
        return value if len(value) <= 80 else value[:77] + "..."
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:,.6g}" if isinstance(value, float) else f"{value:,}"
    return label(value)


def agree(name: str, values: Sequence[Any]) -> bool:
    """Whether all values are the same, counts within 1 %."""
    counted = not COUNTS.isdisjoint(name.split(".")[1:])
    if counted and all(isinstance(v, int | float) and math.isfinite(v) for v in values):
        return bool(max(values) - min(values) <= TOLERANCE * max(abs(v) for v in values))
    return len({json.dumps(v, sort_keys=True, default=str) for v in values}) <= 1


def groups_of(
    name: str, values: Mapping[str, Any], records: Mapping[str, Record], keys: Mapping[str, set[str]]
) -> list[dict[str, Any]]:
    """The values inside which a fact must agree: all, or each level of the factors bound to move it."""
    parts = name.split(".")[1:]
    if agree(name, list(values.values())):
        return []
    movers = [f for f, own in keys.items() if any(not moved_by(key).isdisjoint(parts) for key in own)]
    groups: dict[tuple[str, ...], dict[str, Any]] = {}
    for cell, value in values.items():
        levels = records[cell].levels
        # What a seed draws (calibration texts, say) may differ between seeds, and be absent.
        seed = str(records[cell].seed) if parts[-1].endswith(HASHES) else ""
        if value or not seed:
            groups.setdefault((seed, *(levels.get(f, "") for f in movers)), {})[cell] = value
    return list(groups.values())


def moved_by(key: str) -> frozenset[str]:
    """Facts that a factor's key is bound to move."""
    head, *rest = key.partition("@")[0].split(".")
    moved = AXIS_FACTS.get(head, frozenset())
    for option in rest:
        moved |= OPTION_FACTS.get(option, frozenset())
    return moved | axis_changes(head)


def axis_changes(axis: str) -> frozenset[str]:
    """What the methods of an axis say they change, from the registry's index (nothing is imported)."""
    from harness import registry_index

    methods = registry_index.read()["methods"]
    return frozenset(word for m in methods if m["axis"] == axis for word in m["changes"])
