"""Keeping and comparing: what the store's commands say, keep, remove and pack."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from harness.errors import StoreError, UnknownNameError
from harness.store import Store
from harness.sweep import storekeeping
from harness.sweep.compare import _verdict, diff, differences
from harness.sweep.execute import Task
from harness.sweep.manifest import find_record, write_manifest
from harness.sweep.outcome import Outcome
from harness.sweep.plan import Plan
from harness.sweep.record import write
from harness.sweep.watch import Watch

from toy import ToyCell, toy_plan  # isort: skip

CELLS = [ToyCell({"beta.number": 2}), ToyCell({"beta.number": 3})]


@pytest.fixture
def plan(own_store: Path) -> Plan:
    """A finished toy sweep, its stages run in this process."""
    made = toy_plan(own_store, CELLS)
    write_manifest(made)
    for node in (made.graph.nodes[key] for key in made.wanted()):
        Task(node=node, store=own_store, externals={}, device="cpu")(lambda what, value: None)
    for cell in made.cells:
        write(made, cell, outcome=Outcome(status="ok"), reused={}, started=0.0, notes={})
    return made


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_uses_count_records_through_everything_they_rest_on(plan: Plan) -> None:
    users = storekeeping.uses(plan.graph.store)
    alpha, beta, *_ = plan.cells[0].keys
    assert (users[alpha], users[beta]) == (2, 1)
    assert storekeeping.main(["ls"]) == 0


def test_gc_keeps_what_a_record_or_a_plan_needs_and_removes_the_rest(plan: Plan, own_store: Path) -> None:
    store = Store(own_store)
    everything = store.all_keys()
    storekeeping.gc(store)
    assert store.all_keys() == everything
    shutil.rmtree(own_store / "records" / "toy" / plan.cells[1].cell.id)
    write_manifest(toy_plan(own_store, CELLS[:1]))
    storekeeping.gc(store, dry_run=True)
    assert store.all_keys() == everything
    storekeeping.gc(store)
    assert store.all_keys() == sorted(plan.cells[0].keys)


def test_verify_finds_damage_and_says_so_with_its_exit_code(
    plan: Plan, own_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert storekeeping.main(["verify"]) == 0
    (plan.graph.store.path(plan.cells[0].keys[0]) / "number").write_text("9")
    assert storekeeping.main(["verify"]) == 1
    assert "does not match its hash" in capsys.readouterr().out


def test_a_packed_record_holds_all_it_rests_on(plan: Plan, own_store: Path, tmp_path: Path) -> None:
    name = f"toy/{plan.cells[0].cell.id}"
    target = tmp_path / "record.tar.gz"
    assert storekeeping.main(["export", name, str(target)]) == 0
    elsewhere = tmp_path / "elsewhere"
    shutil.unpack_archive(target, elsewhere)
    _, record = find_record(elsewhere, name)
    other = Store(elsewhere)
    for stage in record["stages"]:
        other.verify(stage["key"])
    shutil.rmtree(plan.graph.store.path(plan.cells[0].keys[0]))
    with pytest.raises(StoreError, match="run its sweep again"):
        storekeeping.main(["export", name, str(target)])


def test_records_are_found_by_path_name_or_beginning(plan: Plan, own_store: Path) -> None:
    whole = f"toy/{plan.cells[0].cell.id}"
    where, record = find_record(own_store, whole)
    assert (
        find_record(own_store, str(where))[1]
        == find_record(own_store, str(where / "record.json"))[1]
        == record
    )
    with pytest.raises(StoreError, match="several records answer"):
        find_record(own_store, "beta")
    with pytest.raises(StoreError, match="there is none"):
        find_record(own_store, "nothing")


def test_diff_names_what_differs(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"toy/{cell.cell.id}" for cell in plan.cells]
    assert diff(names) == 1
    assert "levels.beta.number" in capsys.readouterr().out
    assert diff([names[0], names[0]]) == 0
    assert list(differences({"a": {"b": 1}}, {"a": {"b": 2}, "c": 3}, "x")) == [
        ("x.a.b", 1, 2), ("x.c", None, 3)
    ]  # fmt: skip


def test_a_reproduction_fails_on_another_number_and_forgives_a_speed(plan: Plan, own_store: Path) -> None:
    _, record = find_record(own_store, f"toy/{plan.cells[0].cell.id}")
    assert _verdict(record, record) == 0

    def with_metric(name: str, value: float) -> dict[str, object]:
        return {**record, "metrics": [{"evaluator": name, "task": "t", "metric": "m", "value": value}]}

    assert _verdict(with_metric("perplexity", 1.0), with_metric("perplexity", 1.1)) == 1
    assert _verdict(with_metric("perplexity", 1.0), with_metric("perplexity", 1.0 + 1e-9)) == 0
    assert _verdict(with_metric("efficiency", 1.0), with_metric("efficiency", 2.0)) == 0


def test_watch_shows_cells_by_outcome_and_knows_the_end(plan: Plan, own_store: Path) -> None:
    picture, finished = Watch(own_store, "toy").look()
    console = Console(record=True, width=100)
    console.print(picture)
    text = console.export_text()
    assert finished
    assert "2 of 2 cells (2 ok)" in text
    assert "7 of 7 in the store" in text
    assert "left" not in text
    shutil.rmtree(own_store / "records" / "toy" / plan.cells[0].cell.id)
    assert not Watch(own_store, "toy").look()[1]
    with pytest.raises(UnknownNameError, match="Did you mean 'toy'"):
        Watch(own_store, "toi").look()


def test_watch_tells_what_a_running_stage_uses_and_how_long_the_rest_takes(
    plan: Plan, own_store: Path
) -> None:
    store = plan.graph.store
    (key,) = (k for k in plan.cells[0].keys if plan.graph.nodes[k].stage == "beta")
    shutil.rmtree(own_store / "artifacts" / key[:2] / key)
    (other,) = (k for k in plan.cells[1].keys if plan.graph.nodes[k].stage == "beta")
    file = own_store / "artifacts" / other[:2] / other / "artifact.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"seconds": 600.0}))
    busy = subprocess.Popen(["sleep", "60"], start_new_session=True)
    claim = store.claim(key)
    assert claim is not None
    try:
        claim.works_in(busy.pid)
        picture, _ = Watch(own_store, "toy").look()
    finally:
        busy.kill()
        busy.wait()
        claim.release()
    console = Console(record=True, width=100)
    console.print(picture)
    text = console.export_text()
    assert "6 of 7 in the store, about 10 min left" in text
    assert re.search(rf"beta +\S+:{os.getpid()} +0 s +\d+ MiB +0\.0", text)
