"""Every file of a store, damaged in every way: each command answers, and the same sweep makes it whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import turns
from wrong_places import places, with_wrong

from harness.cli import main
from harness.plan.manifest import write_manifest
from harness.plan.plan import Plan
from harness.run.execute import Task
from harness.run.outcome import Outcome
from harness.run.record import finished, look_before, write
from harness.store.claims import _owner
from harness.store.files import write_json

from toy import ToyCell, toy_plan  # isort: skip

CELLS = [ToyCell({"beta.number": 2}), ToyCell({"beta.number": 3})]
DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "empty": lambda file: file.write_bytes(b""),
    "a list": lambda file: file.write_text("[]"),
    "no fields": lambda file: file.write_text('{"format": 1}'),
    "binary": lambda file: file.write_bytes(bytes(range(256))),
    "a folder": lambda file: (file.unlink(), file.mkdir()),
    "a link to nowhere": lambda file: (file.unlink(), file.symlink_to("/nowhere/at/all")),
    "a link to itself": lambda file: (file.unlink(), file.symlink_to(file.name)),
    "gone": lambda file: file.unlink(),
}
OFTEN = ("truncated", "a folder")
WRONG: list[Any] = [[3], {"a": 3}, "x", 7, None, True]
ANSWERS = (0, 1, 2)
"""Exit codes that are no defect of ours: well, something is missing or damaged, or asked for wrongly."""


def complete(store: Path) -> Plan:
    """Run what is missing of the toy sweep in this process, as a worker does, and write its records."""
    made = toy_plan(store, CELLS)
    look_before(made)
    write_manifest(made)
    for node in made.missing():
        claim = made.graph.store.claims.acquire(node.key)
        if claim is not None:  # else a damaged one, which is taken over once it has been still for a while
            claim.release()
        Task(node=node, store=store, externals={}, device="cpu")(lambda what, value: None)
    for cell in made.cells:
        made_at = {
            key: artifact.meta["created"] for key in cell.keys if (artifact := made.graph.store.find(key))
        }
        if finished(made, cell, Outcome(status="ok"), made=made_at.get) is None:
            write(made, cell, outcome=Outcome(status="ok"), reused={}, started=0.0, notes={})
    return made


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a finished toy sweep, with a claim, an outcome and a step of a stage that never ended."""
    store = tmp_path_factory.mktemp("template") / "store"
    made = complete(store)
    key = "f" * 64
    write_json(store / "claims" / key, {**_owner(), "pid": 2**22 + 1})
    write_json(store / "outcomes" / "ff" / f"{key}.json", {"status": "failed", "attempts": 1})
    (store / "partial" / key).mkdir(parents=True)
    (store / "partial" / key / "steps.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    made.graph.save_caches()
    return store


def commands(made: Plan, folder: Path) -> list[list[str]]:
    first, second = (f"toy/{cell.cell.id}" for cell in made.cells)
    return [
        ["store", "ls"],
        ["watch", "toy", "--once"],
        ["show", first],
        ["diff", first, second],
        ["store", "export", first, str(folder / "packed.tar.gz")],
        ["store", "gc", "--dry-run"],
        ["store", "verify"],
        ["store", "gc"],
        ["report", "toy"],
        ["reproduce", first],
        ["export", first, str(folder / "model")],
        ["plan", "scale=smoke", "stages=[corpus]"],
    ]


def answered(
    store: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command on a copy of its own, as one sets aside what another is to find; then the same sweep."""
    made = toy_plan(store, CELLS)
    for arguments in commands(made, folder):
        own = folder / "own"
        shutil.copytree(store, own, symlinks=True)
        monkeypatch.setenv("HARNESS_STORE", str(own))
        code = main(arguments)
        said = capsys.readouterr()
        assert code in ANSWERS, f"{arguments}: {said.err}"
        assert "Traceback" not in said.err
        shutil.rmtree(own)
    completed = complete(store)
    assert completed.missing() == []
    monkeypatch.setenv("HARNESS_STORE", str(store))
    for cell in completed.cells:
        assert main(["show", f"toy/{cell.cell.id}"]) == 0, capsys.readouterr().err
    assert main(["watch", "toy", "--once"]) == 0


def files(store: Path) -> Iterator[Path]:
    """One file of each kind."""
    kinds = set()
    for file in sorted(path for path in store.rglob("*") if path.is_file()):
        kind = (file.relative_to(store).parts[0], file.name if file.suffix else "")
        if kind not in kinds:
            kinds.add(kind)
            yield file.relative_to(store)


@pytest.mark.parametrize(
    "damage",
    [
        *turns.fast(OFTEN, OFTEN[:1]),
        *(pytest.param(name, marks=pytest.mark.slow) for name in DAMAGES if name not in OFTEN),
    ],
)
def test_no_damaged_file_stops_a_command_or_the_sweep(
    damage: str,
    template: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for place, name in enumerate(files(template)):
        store = tmp_path / str(place)
        shutil.copytree(template, store)
        DAMAGES[damage](store / name)
        answered(store, tmp_path, capsys, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["artifact.json", "record.json", "sweep.json", "claims/*", "outcomes/*/*", "cache/*"]
)
def test_no_value_of_another_type_stops_a_command_or_the_sweep(
    kind: str,
    template: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for file in sorted(template.rglob(kind))[:2]:
        stated = json.loads(file.read_text())
        for place in places(stated, first_alone=True, opens=lambda place: len(place) < 4):
            for wrong in WRONG:
                if place == ("format",) and isinstance(wrong, int | float) and wrong > 1:
                    continue  # of a newer version, which nobody may set aside
                changed = with_wrong(stated, place, wrong)
                store = tmp_path / "store"
                shutil.copytree(template, store)
                (store / file.relative_to(template)).write_text(json.dumps(changed))
                answered(store, tmp_path, capsys, monkeypatch)
                shutil.rmtree(store)
