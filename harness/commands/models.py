"""The model of a record: the one that was measured, as far as the store still has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.compose.schema import stage_key
from harness.errors import StoreError
from harness.plan.files import CACHE, check_unchanged
from harness.registry.known import registry
from harness.store import Artifact, Store
from harness.store.external import HUB, PATH, external

if TYPE_CHECKING:
    from harness.axes.evaluator import Subject
    from harness.model.artifact import Loaded

EVALUATION, MODEL = "evaluation", "model"
"""Kinds of artifacts."""


def load_record(
    record: Mapping[str, Any], store: Store, *, device: str = "cpu", adapters: bool = True
) -> Loaded:
    """The model of a record's cell, with tokenizer and template; without its unmerged adapter where asked.

    Raises: StoreError where the cell has none, or where what it rests on is gone; ChangedError
    """
    from harness.model.artifact import load_model

    load = loader(record, store)
    return load_model(load(model_key(record, store)), load, device=device, adapters=adapters)


def load_subject(record: Mapping[str, Any], store: Store, *, device: str = "cpu") -> Subject:
    """The model of a record's cell as its evaluation had it: template, prompts, decoding, special tokens.

    Raises: as `load_record`
    """
    from harness.evaluation.answers import prepare
    from harness.model.artifact import restore
    from harness.stage import Work
    from harness.stages.evaluate import load_subject as measured

    load, evaluated = loader(record, store), evaluations(record, store)
    stage = evaluated[-1].stage if evaluated else _evaluating(record)
    options = record["config"].get(stage_key(stage)) or {}
    node = dict(options.get("decoding") or record["config"]["decoding"])
    decoding = restore({"axis": "decoding", "method": node.pop("method"), "config": node})
    inputs = {name: key for artifact in evaluated for name, key in artifact.inputs.items()}
    seeds = [artifact.meta.get("seed") for artifact in evaluated]
    work = Work(
        stage=stage,
        maker=registry().stage(stage),
        part="",
        config=None,
        choices={"decoding": decoding},
        inputs={name: load(key) for name, key in inputs.items() if name.startswith("decoding.")},
        seed=next((seed for seed in seeds if seed is not None), int(record["seed"])),
        device=device,
        out=Path(),
        checkpoints=Path(),
        load=load,
    )
    subject = measured(work, load(model_key(record, store)), max_length=options.get("max_length"))
    prepare(subject)
    return subject


def _evaluating(record: Mapping[str, Any]) -> str:
    """The last stage of a cell that measures, whose options hold where no evaluation is left; or nothing."""
    stages = reversed(record["config"]["stages"])
    return next((stage for stage in stages if registry().stage(stage).produces == EVALUATION), "")


def model_key(record: Mapping[str, Any], store: Store) -> str:
    """Key of the model that a cell ends with: what its last evaluation measured, or what came after it.

    Raises: StoreError where the cell has none
    """
    for entry in reversed(record["stages"]):
        kind = registry().stage(entry["stage"]).produces
        if kind == MODEL:
            return str(entry["key"])
        artifact = store.find(entry["key"]) if kind == EVALUATION else None
        if artifact is not None and MODEL in artifact.inputs:
            return artifact.inputs[MODEL]
    if len(record.get("models") or {}) == 1:
        return str(next(iter(record["models"])))
    raise StoreError(
        f"{name_of(record)} has no model that is known ({record['outcome']['status']}); run its sweep again "
        f"first, or `harness reproduce {name_of(record)}`"
    )


def evaluations(record: Mapping[str, Any], store: Store) -> list[Artifact]:
    """Artifacts of a cell's last evaluation, one a task, as far as the store has them."""
    found = [artifact for entry in record["stages"] if (artifact := store.find(entry["key"])) is not None]
    found = [artifact for artifact in found if artifact.kind == EVALUATION]
    return [artifact for artifact in found if artifact.stage == found[-1].stage]


def loader(record: Mapping[str, Any], store: Store) -> Callable[[str], Artifact]:
    """Key -> artifact, outside of a sweep: models from outside are found where they were.

    The function raises StoreError where an artifact is gone, and ChangedError where a model from outside is
    another one by now.
    """
    outside = {key: _reference(facts) for key, facts in (record.get("models") or {}).items()}
    for entry in record["stages"]:
        made = store.find(entry["key"])
        outside.update(made.meta.get("externals", {}) if made is not None else {})

    def load(key: str) -> Artifact:
        if key in outside:
            given = external(outside[key], cache=store.root / CACHE)
            check_unchanged({outside[key]: key}, {outside[key]: given.key})
            return given
        found = store.find(key)
        if found is None:
            raise gone(record, store, key)
        outside.update(found.meta.get("externals", {}))
        return found

    return load


def gone(record: Mapping[str, Any], store: Store, key: str) -> StoreError:
    """The error for an artifact of a record that is not in the store, and what makes it again."""
    stage = next((f", of stage {e['stage']}," for e in record["stages"] if e["key"] == key), "")
    again = store.root / "reproduced" / str(record["cell"])
    return StoreError(
        f"{name_of(record)}: artifact {key[:12]}{stage} is not in {store.root}; it was collected, or made "
        f"elsewhere. Run its sweep again, or `harness reproduce {name_of(record)}`, which makes it in "
        f"{again} (a store of its own: harness.load_model(..., store=...) takes it)"
    )


def name_of(record: Mapping[str, Any]) -> str:
    """`<sweep>/<cell>`, as commands take it."""
    return f"{record.get('sweep', '')}/{record['cell']}"


def _reference(facts: Mapping[str, Any]) -> str:
    if "path" in facts:
        return f"{PATH}{facts['path']}"
    return f"{HUB}{facts['name']}@{facts['revision']}"
