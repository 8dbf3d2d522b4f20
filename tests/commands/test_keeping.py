"""Keeping and comparing: what the store's commands say, keep, remove and pack."""

import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from harness.cli import main
from harness.commands import store as store_command
from harness.commands.compare import _verdict, diff, differences
from harness.commands.records import find
from harness.commands.show import main as show
from harness.errors import ConfigError, StoreError, UnknownNameError
from harness.plan.manifest import find_record, stages_of, write_manifest
from harness.plan.plan import Plan
from harness.report.compact import write_compact
from harness.report.records import read
from harness.run import progress
from harness.run.execute import STEPS, Task
from harness.run.outcome import Outcome, Outcomes
from harness.run.pace import Pace
from harness.run.record import write
from harness.run.watch import Watch
from harness.store import Store
from harness.store.claims import _owner

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


def test_records_of_a_committed_file_are_shown_compared_and_found(
    plan: Plan, own_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "reports" / "toy"
    folder.mkdir(parents=True)
    write_compact(read(own_store, "toy"), folder / "records.json.gz", shown={})
    first, second = (cell.cell.id for cell in plan.cells)
    for place in (folder, folder / "records.json.gz"):
        assert find(own_store, f"{place}/{first}")["cell"] == first
        with pytest.raises(StoreError, match=r"holds 2 cells\. Give .*\.gz/<cell>, e\.g\. of .*seed 0"):
            find(own_store, str(place))
        with pytest.raises(StoreError, match="0 of its 2 cells answer"):
            find(own_store, f"{place}/nothing")
    assert find(own_store, f"toy/{first}")["cell"] == first
    assert diff([f"{folder}/{first}", f"toy/{first}"]) == 0
    assert diff([f"{folder}/{first}", f"{folder}/{second}"]) == 1
    assert "facts.beta.product" in capsys.readouterr().out
    assert show([f"{folder}/{first}"]) == 0
    said = capsys.readouterr().out
    assert "toy.toy.product = 2" in said
    assert "beta   " in said
    assert show([str(folder)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert show([f"toy/{second}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cell"] == second


def test_uses_count_records_through_everything_they_rest_on(plan: Plan) -> None:
    users = store_command.uses(plan.graph.store)
    alpha, beta, *_ = plan.cells[0].keys
    assert (users[alpha], users[beta]) == (2, 1)
    assert store_command.main(["ls"]) == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("gc --dryrun", "--dryrun is no flag of `harness store gc`, which takes --dry-run alone"),
        ("gc old", "harness store gc takes no words, not old"),
        ("ls --all", "--all is no flag of `harness store ls`, which takes no flags"),
        ("verify --fix", "--fix is no flag"),
        ("export toy", r"takes a record \(demo/0123abcd\) and a file \(out.tar.gz\), not toy"),
        ("import a b", "takes a file that `harness store export` wrote, not a b"),
    ],
)
def test_no_store_command_drops_a_word(plan: Plan, own_store: Path, line: str, said: str) -> None:
    """`gc --dryrun` removed what it was asked to show."""
    shutil.rmtree(own_store / "records")
    everything = Store(own_store).all_keys()
    with pytest.raises(ConfigError, match=said):
        store_command.main(line.split())
    assert Store(own_store).all_keys() == everything


def test_help_of_a_store_command_runs_nothing(
    plan: Plan, own_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(own_store / "records")
    everything = Store(own_store).all_keys()
    assert store_command.main(["gc", "--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: harness store")
    assert Store(own_store).all_keys() == everything


@pytest.mark.parametrize(
    "line", ["diff nothing toy", "reproduce toy", "export toy out", "report nothing", "store import none.gz"]
)
def test_a_name_that_is_not_there_is_bad_input_and_no_difference(
    plan: Plan, own_store: Path, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """`harness diff` says 1 of records that differ, `harness reproduce` of one that came out otherwise."""
    assert main(line.split()) == 2
    said = capsys.readouterr().err
    cells = [cell.cell.id for cell in plan.cells]
    if " toy" in line and "nothing" not in line:
        assert all(f"toy/{cell}" in said for cell in cells)
    elif "report" in line or "diff" in line:
        assert "toy" in said.partition("nothing")[2]


def test_a_file_is_no_store(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for root in (file, file / "below"):
        with pytest.raises(ConfigError, match=rf"No store at {root}: {file} is no folder; name one"):
            Store(root)


def test_gc_keeps_what_a_record_or_a_plan_needs_and_removes_the_rest(plan: Plan, own_store: Path) -> None:
    store = Store(own_store)
    everything = store.all_keys()
    store_command.gc(store)
    assert store.all_keys() == everything
    shutil.rmtree(own_store / "records" / "toy" / plan.cells[1].cell.id)
    write_manifest(toy_plan(own_store, CELLS[:1]))
    store_command.gc(store, dry_run=True)
    assert store.all_keys() == everything
    store_command.gc(store)
    assert store.all_keys() == sorted(plan.cells[0].keys)


@pytest.mark.parametrize("word", ["--dryrun", "--dry_run", "-n", "demo/0123abcd"])
def test_what_gc_does_not_know_removes_nothing(plan: Plan, own_store: Path, word: str) -> None:
    shutil.rmtree(own_store / "records")
    kept = Store(own_store).all_keys()
    flag = f"{word} is no flag of `harness store gc`, which takes --dry-run alone"
    said = flag if word.startswith("-") else f"harness store gc takes no words, not {word}"
    with pytest.raises(ConfigError, match=re.escape(said)):
        store_command.main(["gc", word])
    assert kept
    assert Store(own_store).all_keys() == kept


@pytest.mark.parametrize("command", store_command.COMMANDS)
def test_help_of_a_store_command_does_nothing_else(
    plan: Plan, own_store: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(own_store / "records")
    kept = Store(own_store).all_keys()
    assert store_command.main([command, "--help"]) == 0
    assert capsys.readouterr().out.strip() == store_command.HELP
    assert kept
    assert Store(own_store).all_keys() == kept


def test_verify_finds_damage_and_says_so_with_its_exit_code(
    plan: Plan, own_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert store_command.main(["verify"]) == 0
    (plan.graph.store.path(plan.cells[0].keys[0]) / "number").write_text("9")
    assert store_command.main(["verify"]) == 1
    assert "does not match its hash" in capsys.readouterr().out


def test_a_packed_record_holds_all_it_rests_on(plan: Plan, own_store: Path, tmp_path: Path) -> None:
    name = f"toy/{plan.cells[0].cell.id}"
    target = tmp_path / "record.tar.gz"
    assert store_command.main(["export", name, str(target)]) == 0
    elsewhere = tmp_path / "elsewhere"
    shutil.unpack_archive(target, elsewhere)
    _, record = find_record(elsewhere, name)
    other = Store(elsewhere)
    for stage in record["stages"]:
        other.verify(stage["key"])
    shutil.rmtree(plan.graph.store.path(plan.cells[0].keys[0]))
    with pytest.raises(StoreError, match="run its sweep again"):
        store_command.main(["export", name, str(target)])


def archive_with(path: Path, *entries: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for info, content in entries:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def entry(name: str, content: bytes = b"x", *, kind: bytes = tarfile.REGTYPE, link: str = "") -> Any:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info, content if kind == tarfile.REGTYPE else b""


def test_a_packed_record_is_taken_into_another_store(
    plan: Plan, own_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    name = f"toy/{plan.cells[0].cell.id}"
    packed = tmp_path / "record.tar.gz"
    assert store_command.main(["export", name, str(packed)]) == 0
    monkeypatch.setenv("HARNESS_STORE", str(tmp_path / "other"))
    assert store_command.main(["import", str(packed)]) == 0
    assert f"new: {name} with 4 artifacts; 0 were there" in capsys.readouterr().out
    other = Store(tmp_path / "other")
    assert all(other.verify(key) for key in plan.cells[0].keys)
    assert find_record(other.root, name)[1] == find_record(own_store, name)[1]
    assert store_command.main(["import", str(packed)]) == 0
    assert "new: no record with 0 artifacts; 5 were there" in capsys.readouterr().out
    assert not list((other.root / "tmp").iterdir())


@pytest.mark.parametrize(
    "bad",
    [
        entry("../../evil"),
        entry("/etc/evil"),
        entry("records/../../evil"),
        entry("records/toy/../../../evil"),
        entry("claims/abc"),
        entry("artifacts/ab/" + "ab" * 32, kind=tarfile.SYMTYPE, link="/etc"),
        entry("records/toy/0", kind=tarfile.LNKTYPE, link="/etc/passwd"),
        entry("records/toy/0/pipe", kind=tarfile.FIFOTYPE),
        entry("artifacts/cd/" + "ab" * 32 + "/a"),
        entry("records/toy/0/record.json", b"[]"),
        entry("records/toy/0/record.json", b'{"format": 1}'),
        entry("artifacts/ab/" + "ab" * 32 + "/artifact.json", b"{}"),
        entry("records/toy/0/record.json/a"),
        entry("artifacts/ab/" + "ab" * 32 + "/a", kind=tarfile.CHRTYPE),
        entry("records/toy/0/record.json", b"[" * 10_000),
        entry("records/toy\n/0/record.json", b"{}"),
        entry("records/toy/0/" + "a" * 300),
        entry("records/toy/0/" + "a/" * 1500 + "a"),
        entry("records"),
        entry("artifacts/ab/" + "ab" * 32),
    ],
    ids=range(20),
)
def test_an_archive_of_anybody_harms_no_store(bad: Any, own_store: Path, tmp_path: Path) -> None:
    file = archive_with(tmp_path / "evil.tar.gz", bad)
    with pytest.raises(StoreError):
        store_command.main(["import", str(file)])
    left = [path for path in own_store.rglob("*") if path.is_file()]
    assert left == []
    assert not list(tmp_path.rglob("evil"))
    assert not Path("/etc/evil").exists()


def test_an_archive_with_other_content_than_it_says_is_refused(
    plan: Plan, own_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, unpacked = tmp_path / "record.tar.gz", tmp_path / "unpacked"
    store_command.main(["export", f"toy/{plan.cells[0].cell.id}", str(packed)])
    shutil.unpack_archive(packed, unpacked)
    changed = next(p for p in unpacked.glob("artifacts/*/*/*") if p.name != "artifact.json")
    changed.write_bytes(b"?" * changed.stat().st_size)
    again = shutil.make_archive(str(tmp_path / "again"), "gztar", unpacked)
    monkeypatch.setenv("HARNESS_STORE", str(tmp_path / "other"))
    with pytest.raises(StoreError, match="does not match its hash"):
        store_command.main(["import", again])
    assert not (tmp_path / "other" / "artifacts").exists()
    with pytest.raises(StoreError, match="is no archive"):
        store_command.main(["import", str(changed)])
    whole = packed.read_bytes()
    for cut in (b"", whole[:10], whole[: len(whole) // 2], whole[:200] + b"\xff" * 64 + whole[264:]):
        packed.write_bytes(cut)
        with pytest.raises(StoreError, match="is no archive"):
            store_command.main(["import", str(packed)])
    in_the_way = archive_with(
        tmp_path / "way.tar.gz", entry("artifacts/ab"), entry("artifacts/ab/" + "ab" * 32 + "/a")
    )
    with pytest.raises(StoreError, match="is no archive"):
        store_command.main(["import", str(in_the_way)])
    with pytest.raises(StoreError, match="there is no file"):
        store_command.main(["import", "nowhere.tar.gz"])


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
    with pytest.raises(StoreError, match=r"there is none in .*, which holds those of toy"):
        find_record(own_store, "nothing")
    with pytest.raises(StoreError, match=f"it is a sweep, with the records .*{whole}"):
        find_record(own_store, "toy")


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


def shown(picture: RenderableType) -> str:
    console = Console(record=True, width=120)
    console.print(picture)
    return console.export_text()


def test_watch_shows_cells_by_outcome_and_knows_the_end(plan: Plan, own_store: Path) -> None:
    picture, finished = Watch(own_store, "toy").look()
    text = shown(picture)
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
    shutil.rmtree(own_store / "records" / "toy" / plan.cells[0].cell.id)
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
    text = shown(picture)
    assert "6 of 7 in the store, about 10 min left" in text
    assert re.search(rf"beta +beta.number=2 +\S+:{os.getpid()} +0 s +\d+ MiB +0\.0", text)


def elsewhere(plan: Plan, key: str) -> Path:
    """A claim that a process of another machine, whose clock is a day ahead, holds."""
    owner = {"token": "a", "host": "node7", "pid": 42, "boot": "node7/1", "since": time.time() + 86400}
    file = plan.graph.store.root / "claims" / key
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(owner))
    os.utime(file, (time.time() + 86400,) * 2)
    return file


def unfinished(plan: Plan, stage: str) -> str:
    """Take a stage of the first cell, and its record, out of a finished sweep; returns the stage's key."""
    key = next(k for k in plan.cells[0].keys if plan.graph.nodes[k].stage == stage)
    shutil.rmtree(plan.graph.store.path(key))
    shutil.rmtree(plan.graph.store.root / "records" / "toy" / plan.cells[0].cell.id)
    return key


def test_watch_shows_what_other_machines_make_and_leaves_out_what_died_here(
    plan: Plan, own_store: Path
) -> None:
    file = elsewhere(plan, unfinished(plan, "beta"))
    assert re.search(r"beta +beta.number=2 +node7:42 +0 s", shown(Watch(own_store, "toy").look()[0]))
    gone = subprocess.Popen(["true"])
    gone.wait()
    file.write_text(json.dumps({**_owner(), "pid": gone.pid}))
    assert "running" not in shown(Watch(own_store, "toy").look()[0])


def test_watch_counts_records_of_a_newer_version_as_such(plan: Plan, own_store: Path) -> None:
    file = next((own_store / "records" / "toy").glob("*/record.json"))
    file.write_text(json.dumps({"format": 99}))
    picture, finished = Watch(own_store, "toy").look()
    assert finished
    assert "2 of 2 cells (1 ok, 1 written by a newer version)" in shown(picture)


def test_watch_of_a_tuned_sweep_shows_its_trials_until_its_cells_are_known(
    plan: Plan, own_store: Path
) -> None:
    (own_store / "records" / "toy").rename(own_store / "records" / "toy.tune")
    write_manifest(replace(plan, name="toy.tune"))
    picture, finished = Watch(own_store, "toy").look()
    assert not finished
    assert "toy.tune: 2 of 2 trials (2 ok)" in shown(picture)
    assert "toy: its cells follow once all trials have ended" in shown(picture)
    write_manifest(plan)
    assert "toy: 0 of 2 cells" in shown(Watch(own_store, "toy").look()[0])
    shutil.copytree(own_store / "records" / "toy.tune", own_store / "records" / "toy", dirs_exist_ok=True)
    write_manifest(plan)
    assert Watch(own_store, "toy").look()[1]


def test_a_sweep_names_whom_it_waits_for_and_how_long_the_rest_takes(
    plan: Plan, own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(plan, unfinished(plan, "beta"))
    for file in own_store.glob("artifacts/*/*/artifact.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"seconds": 600.0}))
    monkeypatch.setattr(progress, "EVERY", 0.0)
    stream = io.StringIO()
    progress.Lines(plan, stream=stream).tick(waiting=1, elsewhere=1)
    said = stream.getvalue()
    assert "waiting for 1 stage of other processes: beta on node7:42; from one without a sign of life" in said
    assert "6 of 7 stages in the store, about 10 min left at this pace" in said
    live = progress.Live(plan)
    live.close()
    assert "about 10 min left at this pace" in shown(live._table(waiting=1, elsewhere=1))
    for cell in plan.cells:
        live.cell_finished(cell, Outcome(status="failed"), reused=True)
    assert "left" not in live._progress(), "what no open cell asks for is not waited for"


def test_a_training_under_way_counts_by_its_own_progress(plan: Plan, own_store: Path) -> None:
    store, key = plan.graph.store, unfinished(plan, "beta")
    holder = {"since": time.time() - 300.0}
    (store.checkpoints(key) / STEPS).write_text('{"step": 3, "progress": 0.25}\n')
    stages, pace = stages_of(plan), Pace(store)
    assert pace.stored(stages) == 6
    left = pace.left(stages, asked=plan.cells[0].keys, running={key: holder})
    assert left == pytest.approx(900.0, abs=30.0)


def test_what_runs_longer_than_all_before_tells_of_those_like_it(own_store: Path) -> None:
    """A first evaluation of ten minutes after stages of two seconds: ten more like it were `about 20 s`."""
    store = Store(own_store)
    about = {"stage": "evaluate", "inputs": {}}
    stages = {f"{i}" * 64: {**about, "title": "evaluate slow"} for i in range(9)}
    stages["a" * 64] = {**about, "title": "evaluate quick"}
    pace = Pace(store)
    pace._took["a" * 64] = 2.0
    running = {"0" * 64: {"since": time.time() - 600.0}}
    assert pace.left(stages, asked=stages, running=running) == pytest.approx(8 * 600.0, abs=60.0)


def test_stages_are_told_apart_by_the_levels_that_only_some_cells_have(own_store: Path) -> None:
    cells = [ToyCell({"beta.number": n, "gamma.number": 5}, seed=seed) for n in (2, 3) for seed in (0, 1)]
    made = toy_plan(own_store, cells)
    found = [(about["stage"], about["levels"]) for about in stages_of(made).values()]
    assert ("alpha", "") in found
    assert ("beta", "beta.number=3 seed=1") in found
    assert not any("gamma.number" in levels for _, levels in found), "what all cells have tells nothing"


@pytest.mark.parametrize("content", ["", "[]", '{"format": 1}', '{"format": 1, "sweep": "toy"}', "\x00"])
@pytest.mark.parametrize("name", ["record.json", "sweep.json", "artifact.json", "outcome"])
def test_a_damaged_file_stops_no_command(
    plan: Plan, own_store: Path, name: str, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is named and set aside, or made anew; what else the store holds is listed, kept and shown."""
    store = plan.graph.store
    beta = plan.cells[0].keys[1]
    files = {
        "record.json": next((own_store / "records" / "toy").glob("*/record.json")),
        "sweep.json": own_store / "records" / "toy" / "sweep.json",
        "artifact.json": store.path(beta) / "artifact.json",
        "outcome": own_store / "outcomes" / beta[:2] / f"{beta}.json",
    }
    files[name].parent.mkdir(parents=True, exist_ok=True)
    files[name].write_text(content)
    others = [key for key in store.all_keys() if key != beta]
    assert store_command.main(["ls"]) == 0
    assert store_command.main(["gc"]) == 0
    assert store_command.main(["verify"]) == 0
    assert Outcomes(own_store).read(beta) is None
    assert set(others) <= set(store.all_keys()), "what whole records rest on was removed"
    if name != "outcome":
        assert str(files[name].parent.name)[:12] in caplog.text
    if name != "sweep.json":
        Watch(own_store, "toy").look()
    else:
        with pytest.raises(UnknownNameError, match="No sweep"):
            Watch(own_store, "toy").look()


def test_a_sweep_has_one_folder_whatever_it_is_called(plan: Plan, own_store: Path) -> None:
    with pytest.raises(ConfigError, match="is no name of a sweep"):
        write_manifest(replace(plan, name="../../../x"))
    write_manifest(replace(plan, name="team.first"))
    assert "team.first: 0 of 2 cells" in shown(Watch(own_store, "team/first").look()[0])
    shutil.copytree(own_store / "records" / "toy", own_store / "records" / "team.first", dirs_exist_ok=True)
    cell = plan.cells[0].cell.id
    assert find_record(own_store, f"team/first/{cell}") == find_record(own_store, f"team.first/{cell}")
    for name in (f"../records/toy/{cell}", f"*/{cell}", "[a-z]*"):
        with pytest.raises((ConfigError, StoreError)):
            find_record(own_store, name)
