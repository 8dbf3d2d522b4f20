"""What a sweep is about to do, noted beside its records: for `harness watch`, gc and whoever comes later."""

from __future__ import annotations

import glob
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

from harness.errors import AbsentError, StoreError, UnknownNameError
from harness.plan.plan import Plan
from harness.store.files import read_json, write_json
from harness.store.records import NAME, read_record, set_aside, sweep_dir, sweep_name

MANIFEST = "sweep.json"
FORMAT = 1
log = logging.getLogger("harness.store")


class About(TypedDict):
    """A stage of a plan, for whoever shows it."""

    title: str
    stage: str
    inputs: dict[str, str]
    levels: str


class Planned(TypedDict):
    """A cell of a plan."""

    cell: str
    levels: dict[str, str]
    seed: int
    keys: list[str]


class Manifest(TypedDict):
    """The file."""

    format: int
    sweep: str
    command: str
    started: float
    cells: list[Planned]
    stages: dict[str, About]


def write_manifest(plan: Plan) -> None:
    """Note the cells and stages of a plan under the sweep's records."""
    cells = [
        {"cell": cell.cell.id, "levels": cell.levels, "seed": cell.seed, "keys": list(cell.keys)}
        for cell in plan.cells
    ]
    content = {
        "format": FORMAT,
        "sweep": plan.name,
        "command": " ".join(sys.argv),
        "started": time.time(),
        "cells": cells,
        "stages": stages_of(plan),
    }
    write_json(sweep_dir(plan.graph.store.root, plan.name) / MANIFEST, content)


def stages_of(plan: Plan) -> dict[str, dict[str, Any]]:
    """The stages of a plan by key, as far as whoever shows them needs to know."""
    nodes, levels = plan.graph.nodes, _levels(plan)
    return {
        key: {
            "title": nodes[key].title,
            "stage": nodes[key].stage,
            "inputs": nodes[key].inputs,
            "levels": levels.get(key, ""),
        }
        for key in plan.wanted()
    }


def _levels(plan: Plan) -> dict[str, str]:
    """Of each stage, `optimizer=lion seed=1`: levels that all cells asking for it share, and others lack."""
    places = [(cell.keys, {**cell.levels, "seed": str(cell.seed)}) for cell in plan.cells]
    every = set(places[0][1].items()).intersection(*(p.items() for _, p in places)) if places else set()
    shared: dict[str, dict[str, str]] = {}
    for keys, place in places:
        for key in keys:
            known = shared.setdefault(key, place)
            shared[key] = {name: label for name, label in known.items() if place.get(name) == label}
    return {
        key: " ".join(f"{name}={label}" for name, label in found.items() if (name, label) not in every)
        for key, found in shared.items()
    }


def is_known(root: Path, sweep: str) -> bool:
    """Whether the store knows a plan of that name."""
    return (sweep_dir(root, sweep) / MANIFEST).is_file()


def read_manifest(root: Path, sweep: str) -> dict[str, Any]:
    """The newest plan of a sweep.

    Raises: UnknownNameError where the store knows no such sweep; StoreError where its plan is damaged
    """
    file = sweep_dir(root, sweep) / MANIFEST
    try:
        return read_json(file, Manifest, newest=FORMAT)
    except FileNotFoundError:
        known = [path.parent.name for path in (root / "records").glob(f"*/{MANIFEST}")]
        raise UnknownNameError(what=f"sweep in {root}", name=sweep, known=known) from None
    except ValueError as error:
        raise StoreError(f"{file} is damaged: {error}. The next run of the sweep writes it anew") from None


def manifests(root: Path) -> list[dict[str, Any]]:
    """The newest plans of all sweeps of a store; a damaged one is set aside and named."""
    found = []
    for file in sorted((root / "records").glob(f"*/{MANIFEST}")):
        try:
            found.append(read_json(file, Manifest, newest=FORMAT))
        except FileNotFoundError:
            continue
        except ValueError as error:
            log.warning("%s is damaged: %s (%s)", file, error, set_aside(root, file))
    return found


def find_record(root: Path, name: str) -> tuple[Path, dict[str, Any]]:
    """A record by its path, by `<sweep>/<cell>`, or by the beginning of its cell's id.

    Raises: AbsentError where none or several answer; ConfigError for what is no name
    """
    path = Path(name)
    if path.exists():
        return (path if path.is_dir() else path.parent), read_record(path)
    sweep, _, cell = name.rpartition("/")
    below = glob.escape(sweep_name(sweep)) if sweep else "*"
    found = sorted((root / "records").glob(f"{below}/{glob.escape(cell)}*/{NAME}"))
    if len(found) != 1:
        raise AbsentError(
            f"No single record is called '{name}': {_which(root, name, found)}. Give <sweep>/<cell> or a path"
        )
    return found[0].parent, read_record(found[0])


def _which(root: Path, name: str, found: Sequence[Path]) -> str:
    """What a name may have meant: records that answer, those of a sweep, or which sweeps there are."""
    if found:
        return f"several records answer: {_some(found)}"
    of_sweep = sorted((root / "records").glob(f"{glob.escape(name.replace('/', '.'))}/*/{NAME}"))
    if of_sweep:
        return f"it is a sweep, with the records {_some(of_sweep)}"
    sweeps = sorted({file.parents[1].name for file in (root / "records").glob(f"*/*/{NAME}")})
    return f"there is none in {root / 'records'}, which holds those of {', '.join(sweeps) or 'no sweep'}"


def _some(files: Sequence[Path]) -> str:
    return ", ".join(f"{file.parents[1].name}/{file.parent.name}" for file in files[:5])
