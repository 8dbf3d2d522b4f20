"""Facts that drifted: what was measured differs although the config does not, and is footnoted.

A factor is bound to move some facts; those are free to differ between its levels, and only there.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.report.levels import Settings, level_settings
from harness.report.numbers import counted
from harness.report.record import Record, flatten, label
from harness.report.reruns import beside_others, other_runs
from harness.report.runs import measuring

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
        "requests",
        "vocab_size",
    }
)  # fmt: skip
"""Facts that must agree exactly."""
EXACT_ENDINGS = ("sha256", "_hash", "version", "truncated", "truncated_contexts")
HASHES = ("sha256", "_hash")
ABSENT = "not stated"
"""The value of a fact where its stage does not state it."""
TOLERANCE = 0.01
VERSIONS = {
    **dict.fromkeys(("versions", "git", "harness", "python", "platform"), "versions"),
    "hardware": "machines",
}
"""Provenance that tells versions and machines apart; named for the whole table."""

OPTION_FACTS: Mapping[str, frozenset[str]] = {
    "budget": COUNTS,
    "batch_size": COUNTS | {"batch_size", "effective_batch"},
    "sequence_length": COUNTS | {"sequence_length"},
    "max_length": frozenset({"max_length"}),
    "import": frozenset(),
    "threads": frozenset({"threads"}),
}
"""Facts that options of all stages that train are bound to move, and those of the root."""


def is_controlled(path: str) -> bool:
    """Whether comparability rests on a fact; counts by split and versions by task are controlled too."""
    parts = path.split(".")[1:]
    return bool(parts) and (not (COUNTS | EXACT).isdisjoint(parts) or parts[-1].endswith(EXACT_ENDINGS))


def drifted_facts(records: Sequence[Record]) -> tuple[list[str], dict[str, list[str]]]:
    """Footnotes on the cells whose measured facts differ from most others', and notes on code versions."""
    notes: list[str] = []
    marks: dict[str, list[str]] = {}
    if not records:
        return notes, marks
    columns = stated_facts(records)
    by_cell = {r.cell: r for r in records}
    settings_of = level_settings(records[-1].experiment)
    moves = movers(settings_of)
    together: dict[tuple[str, ...], list[str]] = {}
    for name, values in columns.items():
        odd: dict[str, tuple[Any, Any]] = {}
        varying: list[str] = []
        for group in groups_of(name, values, by_cell, settings_of, moves):
            if agree(name, list(group.values())):
                continue
            if name.partition(".")[0] not in VERSIONS and is_scattered(group):
                varying.append(scattered(group, [by_cell[cell] for cell in group], among=records))
            else:
                odd |= outliers(name, group, notes)
        if varying:
            notes.append(f"Measured {in_words(name)} varies: {'; '.join(varying)}.")
        if odd:
            together.setdefault(tuple(odd), []).append(drift_text(name, odd))
    for cells, texts in together.items():  # one footnote for all that sets these cells apart
        for cell in cells:
            marks[cell] = [*marks.get(cell, ()), "; ".join(texts)]
    for cell, text in (*other_runs(records).items(), *beside_others(records)):
        marks.setdefault(cell, []).append(text)
    return notes, marks


def stated_facts(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Fact -> cell -> value; ABSENT where a cell has the stage and lacks a fact that another seed has.

    What no seed of a configuration has (steps of a method that trains nothing) its stage has no place for.
    """
    columns: dict[str, dict[str, Any]] = {}
    holders: dict[str, dict[str, Any]] = {}
    for record in records:
        of = record.place[0]
        for name, value in record_facts(record):
            columns.setdefault(name, {})[record.cell] = value
            holders.setdefault(holder(name), {})[record.cell] = of
    for name, values in columns.items():
        places = holders[holder(name)]
        if len(values) < len(places):
            stating = {places[cell] for cell in values}
            values |= {c: ABSENT for c, of in places.items() if c not in values and of in stating}
    return columns


def holder(name: str) -> str:
    """What has a fact: its stage; of a stage that measures, the task."""
    parts = name.split(".")
    return ".".join(parts[:3] if parts[0] in measuring() else parts[:1])


def outliers(name: str, values: Mapping[str, Any], notes: list[str]) -> dict[str, tuple[Any, Any]]:
    """Cell -> its value and most others'; of versions and machines a note on the whole table instead."""
    texts = {cell: text_of(value) for cell, value in values.items()}
    counts = Counter(texts.values())
    common, _ = counts.most_common(1)[0]
    if name.partition(".")[0] in VERSIONS:
        listed = ", ".join(f"{text} (records: {count})" for text, count in counts.most_common(4))
        notes.append(f"Records of different {VERSIONS[name.partition('.')[0]]}: {name} is {listed}.")
        return {}
    usual = next(value for cell, value in values.items() if texts[cell] == common)
    return {cell: (values[cell], usual) for cell, text in texts.items() if text != common}


def is_scattered(values: Mapping[str, Any]) -> bool:
    """Whether no value is usual, so that none is odd."""
    counts = Counter(map(text_of, values.values()))
    return max(counts.values()) == 1 or len(counts) > 4


def scattered(values: Mapping[str, Any], own: Sequence[Record], *, among: Sequence[Record]) -> str:
    """`50,234 to 51,303 over the 3 records of alignment = dpo`."""
    numbers = [v for v in values.values() if isinstance(v, int | float)]
    span = f"{text_of(min(numbers))} to {text_of(max(numbers))} " if numbers else ""
    shared = [f"{f} = {v}" for f, v in own[0].levels.items() if {r.levels.get(f) for r in own} == {v}]
    named = ", ".join(shared) if len(own) < len(among) else ""
    return f"{span}over {'the ' * bool(named)}{counted(len(own), 'record')}{named and f' of {named}'}"


def drift_text(name: str, odd: Mapping[str, tuple[Any, Any]]) -> str:
    """What is said of all cells in which a fact is another than elsewhere."""
    if name.endswith(HASHES):
        return f"{in_words(name)} differs from the other rows'"
    own, elsewhere = (in_short(side) for side in zip(*odd.values(), strict=True))
    return f"measured {in_words(name)} is {own}, elsewhere {elsewhere}"


def in_short(values: Sequence[Any]) -> str:
    """Values as `1 or 2`; more than three numbers by their range."""
    texts = list(dict.fromkeys(map(text_of, values)))
    if len(texts) > 3 and all(isinstance(value, int | float) for value in values):
        return f"{text_of(min(values))} to {text_of(max(values))}"
    return " or ".join(texts)


def in_words(name: str) -> str:
    """`pretrain.effective_batch` -> `effective batch of pretrain`; a hash is what it stands for."""
    stage, *middle, last = name.split(".") if "." in name else (name, name)
    for ending in HASHES:
        last = last.removesuffix(ending).rstrip("_") or "content"
    task = " ".join(part.replace("_", " ") for part in dict.fromkeys(middle) if part != last)
    inside = f"{stage} ({task})" if task else stage
    return f"{last.replace('_', ' ')} of {inside}"


def record_facts(record: Record) -> Iterator[tuple[str, Any]]:
    """Controlled facts and provenance of a record as (dotted name, value)."""
    for stage, found in record.data.get("facts", {}).items():
        for path, value in flatten(found, stage):
            if is_controlled(path):
                yield path, value
    for m in record.data["metrics"]:
        name = f"{m['evaluator']}.{m['task']}.{m['metric']}"
        for fact in ("n", "unit", "higher_is_better"):
            yield f"{name}.{fact}", "none" if m.get(fact) in (None, "") else m[fact]
    for stage, number in threads_of(record).items():
        yield f"{stage}.threads", number
    provenance = record.data.get("provenance", {})
    for kind in ("harness", "python", "platform"):
        if provenance.get(kind):
            yield f"{kind}.version", provenance[kind]
    git = provenance.get("git") or {}
    if git.get("commit"):
        yield "git.commit", git["commit"][:12]
    if "dirty" in git:
        yield "git.uncommitted changes", git["dirty"]
    for library, version in (provenance.get("versions") or {}).items():
        yield f"versions.{library}", version
    hardware = provenance.get("hardware") or {}
    yield "hardware.stated", bool(hardware)
    if hardware:
        yield from flatten(hardware, "hardware")


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
    parts = [f"{counted(number, 'thread')} ({', '.join(stages)})" for number, stages in sorted(found.items())]
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
    name: str,
    values: Mapping[str, Any],
    records: Mapping[str, Record],
    settings_of: Settings,
    moves: Mapping[tuple[str, str], Mapping[str, frozenset[str]]],
) -> list[dict[str, Any]]:
    """The values inside which a fact must agree: all, or what sets apart levels that are bound to move it.

    Two levels are told apart only by the keys that move the fact: a level that removes the stage frees no
    count of the others.
    """
    parts = name.split(".")[1:] or [name]
    if agree(name, list(values.values())):
        return []
    hashed = parts[-1].endswith(HASHES)
    drawn = len({drawn_from(records[cell], name.split(".")[0]) for cell in values}) > 1
    stating = {records[cell].place[0] for cell, value in values.items() if value}
    groups: dict[tuple[str, ...], dict[str, Any]] = {}
    by_seed: dict[tuple[str, ...], list[Any]] = {}
    for cell, value in values.items():
        apart = []
        for factor, level in records[cell].levels.items():
            setting, bound = settings_of.get(factor, {}).get(level, {}), moves.get((factor, level), {})
            moving = {k: v for k, v in setting.items() if not bound[k].isdisjoint(parts)}
            apart.append(json.dumps(moving, sort_keys=True, default=str))
        # What a seed draws (calibration texts, say) may differ between seeds; a method may have none.
        seed = str(records[cell].seed)
        by_seed.setdefault((seed, *apart), []).append(value)
        if value or not (hashed and drawn) or records[cell].place[0] in stating:
            groups.setdefault((seed * (hashed and drawn), *apart), {})[cell] = value
    if drawn and not COUNTS.isdisjoint(parts) and explained(name, list(by_seed.values())):
        return []
    return list(groups.values())


def explained(name: str, by_seed: Sequence[Sequence[Any]]) -> bool:
    """Whether a count is another at each seed, whose documents are longer or shorter, for all rows alike."""
    return all(len(values) > 1 and agree(name, values) for values in by_seed)


def drawn_from(record: Record, stage: str) -> str:
    """The seed that a stage of a record drew from, the base one of a shared run; else the record's."""
    seeds = [s.get("seed") for s in record.data.get("stages", ()) if s["stage"] == stage]
    return str(next((seed for seed in seeds if seed is not None), record.seed))


def movers(settings_of: Settings) -> dict[tuple[str, str], dict[str, frozenset[str]]]:
    """(factor, level) -> key it sets -> facts that the key is bound to move."""
    declared = declarations()
    return {
        (factor, level): {key: moved_by(key, declared) for key in setting}
        for factor, levels in settings_of.items()
        for level, setting in levels.items()
    }


def declarations() -> dict[str, frozenset[str]]:
    """What methods and stages say they move, by axis and by `<stage>.<option>`."""
    from harness.registry import index as registry_index

    index = registry_index.read()  # nothing is imported
    pairs = [(m["axis"], fact) for m in index["methods"] for fact in (*m["changes"], *m["moves_facts"])]
    for stage in index["stages"].values():
        pairs += [(f"{stage['key']}.{option}", fact) for option, fact in stage["moves_facts"]]
    found: dict[str, frozenset[str]] = {}
    for key, fact in pairs:
        found[key] = found.get(key, frozenset()) | (COUNTS if fact == "counts" else {fact})
    return found


def moved_by(key: str, declared: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """Facts that a factor's key is bound to move, given what methods and stages declare."""
    head, *rest = key.partition("@")[0].split(".")
    moved = declared.get(head, frozenset()) | declared.get(".".join([head, *rest[:1]]), frozenset())
    for option in rest:
        moved |= OPTION_FACTS.get(option, frozenset())
    return moved
