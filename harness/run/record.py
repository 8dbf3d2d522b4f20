"""The record of a cell, gathered from its artifacts; identical whoever made them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import NewerFormatError, StoreError
from harness.plan.plan import Plan, PlannedCell, directory
from harness.run.metrics import METRICS
from harness.run.outcome import Outcome
from harness.run.provenance import provenance
from harness.store import Artifact
from harness.store.files import new_file
from harness.store.records import FORMAT, NAME, read_record, set_aside, write_record

_WORDS = {
    "fingerprint": "code",
    "files": "files",
    "numerics": "libraries or device",
    "nodes": "methods",
    "config": "options",
}
"""Parts of a key's material, for people."""


Made = Callable[[str], float | None]
"""When the artifact of a key was made (seconds since 1970); None where there is none."""


def write(
    plan: Plan,
    cell: PlannedCell,
    *,
    outcome: Outcome,
    reused: Mapping[str, bool],
    started: float,
    notes: Mapping[str, str],
) -> dict[str, Any]:
    """Gather and write a cell's record with its samples; returns it.

    `reused` says of each key whether it was found rather than made by this sweep; `notes` holds what
    went wrong beside the result (a tracker that failed).
    """
    store = plan.graph.store
    where = directory(plan, cell)
    artifacts = {key: artifact for key in cell.keys if (artifact := store.find(key)) is not None}
    record: dict[str, Any] = {
        "format": FORMAT,
        "sweep": plan.name,
        "cell": cell.cell.id,
        "overrides": list(cell.cell.overrides),
        "config": cell.cell.config,
        "experiment": plan.experiment_node(),
        "levels": cell.levels,
        "seed": cell.seed,
        "seed_from": cell.cell.seed_from,
        "outcome": outcome.brief(),
        "stages": [_stage(plan, key, artifacts.get(key), reused) for key in cell.keys],
        "models": _outside(plan, cell),
        "metrics": _metrics(plan, artifacts),
        **_facts(plan, artifacts),
        "provenance": provenance(started),
    }
    if cell.tuned is not None:
        record["tune"] = cell.tuned
    if notes:
        record["notes"] = dict(notes)
    _copy_samples(plan, cell)
    write_record(where, record)
    return record


def finished(plan: Plan, cell: PlannedCell, outcome: Outcome, *, made: Made) -> dict[str, Any] | None:
    """The record of a cell that stands, rests on exactly these artifacts and says the same; else None.

    `made` says when the artifact of a key was made: one that was deleted and made again has other numbers.
    Raises: NewerFormatError, since writing it anew would lose what a newer version knows
    """
    try:
        record = read_record(directory(plan, cell) / NAME)
    except NewerFormatError:
        raise
    except StoreError:
        return None
    same = [stage["key"] for stage in record["stages"]] == list(cell.keys)
    same = same and all(stage.get("made") == made(stage["key"]) for stage in record["stages"])
    same &= record.get("tune") == cell.tuned and not _lacks_samples(plan, cell)
    return record if same and record["outcome"] == outcome.brief() else None


def look_before(plan: Plan) -> list[str]:
    """Notes for people on the records that stand where this sweep will write its own, before anything runs.

    A damaged one is set aside and named.
    Raises: NewerFormatError where a newer version wrote one
    """
    others, damaged = [], []
    for cell in plan.cells:
        file = directory(plan, cell) / NAME
        try:
            record = read_record(file)
        except NewerFormatError:
            raise
        except StoreError as error:
            if file.exists():
                damaged.append(f"{error} ({set_aside(plan.graph.store.root, file)})")
            continue
        before = [stage["key"] for stage in record["stages"]]
        if not cell.refused and before != list(cell.keys):
            others.append((before, cell))
    if not others:
        return damaged
    why = next((text for before, cell in others if (text := _changed(plan, before, cell))), "")
    return [
        *damaged,
        f"{len(others)} of {len(plan.cells)} cells were recorded with other stages{why}; each record is "
        "replaced when its cell ends, the old stages stay in the store until `harness store gc`",
    ]


def _changed(plan: Plan, before: Sequence[str], cell: PlannedCell) -> str:
    """What of the first stage that is not the same has changed, where the store still knows."""
    for old, new in zip(before, cell.keys, strict=False):
        artifact = plan.graph.store.find(old) if old != new else None
        if artifact is None:
            continue
        node = plan.graph.nodes[new]
        material = artifact.meta.get("material", {})
        names = [name for name, value in node.material.items() if material.get(name) != value]
        changed = [_WORDS.get(name, name) for name in names if name != "inputs"]
        if changed:
            return f" ({node.title}: other {' and '.join(changed)})"
    return ""


def _stage(plan: Plan, key: str, artifact: Artifact | None, reused: Mapping[str, bool]) -> dict[str, Any]:
    node = plan.graph.nodes[key]
    measured = {} if artifact is None or "alone" not in artifact.meta else {"alone": artifact.meta["alone"]}
    return {
        "stage": node.stage,
        "part": node.part,
        "key": key,
        "seed": node.seed,
        "threads": artifact.meta.get("threads") if artifact is not None else None,
        "made": artifact.meta.get("created") if artifact is not None else None,
        "files": node.material.get("files", {}),
        "reused": reused.get(key, True) if artifact is not None else False,
        "seconds": artifact.meta.get("seconds") if artifact is not None else None,
        **measured,
    }


def _outside(plan: Plan, cell: PlannedCell) -> dict[str, Any]:
    """Models that no stage made, by key: where each lies, and the types that a GGUF stores it in."""
    rested = {key for asked in cell.keys for key in (asked, *plan.graph.ancestors(asked))}
    keys = {key for asked in rested for key in plan.graph.nodes[asked].inputs.values()}
    found = {key: plan.graph.artifact(key) for key in sorted(keys & plan.graph.externals.keys())}
    return {key: artifact.facts for key, artifact in found.items() if artifact is not None}


def _metrics(plan: Plan, artifacts: Mapping[str, Artifact]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for key, artifact in artifacts.items():
        node, file = plan.graph.nodes[key], artifact.path / METRICS
        if node.kind == "evaluation" and file.is_file():
            evaluator = node.part.partition(".")[0]
            found += [{"evaluator": evaluator, **metric} for metric in json.loads(file.read_text())]
    return found


def _facts(plan: Plan, artifacts: Mapping[str, Artifact]) -> dict[str, Any]:
    """Facts and effects by stage; those of a part under its name."""
    facts: dict[str, Any] = {}
    effects: dict[str, Any] = {}
    for key, artifact in artifacts.items():
        node = plan.graph.nodes[key]
        own = {k: v for k, v in artifact.facts.items() if k not in ("effects", "metrics")}
        for target, value in ((facts, own), (effects, artifact.facts.get("effects", {}))):
            if node.part:
                target.setdefault(node.stage, {})[node.part] = value
            else:
                target[node.stage] = value
    return {"facts": facts, "effects": {stage: value for stage, value in effects.items() if value}}


def _samples(plan: Plan, cell: PlannedCell) -> Iterator[tuple[Path, Path]]:
    """Of each evaluation that kept its items: where they are, and where the record has them."""
    for key in cell.keys:
        node = plan.graph.nodes[key]
        file = plan.graph.store.path(key) / "samples.parquet"
        if node.kind == "evaluation" and file.is_file():
            yield file, directory(plan, cell) / "samples" / f"{node.part}.parquet"


def _copy_samples(plan: Plan, cell: PlannedCell) -> None:
    for source, target in _samples(plan, cell):
        target.parent.mkdir(parents=True, exist_ok=True)
        with new_file(target) as draft:
            shutil.copyfile(source, draft)


def _lacks_samples(plan: Plan, cell: PlannedCell) -> bool:
    """Whether items of a cell are not beside its record: a report that found them damaged set them aside."""
    return not all(target.is_file() for _, target in _samples(plan, cell))
