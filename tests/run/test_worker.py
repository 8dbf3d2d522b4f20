"""Workers: every stage once, every cell its outcome, whatever happens to processes."""

import contextlib
import json
import os
import re
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import pytest
import turns
import warm

from harness.axes.tracker import Tracker
from harness.commands import sweep as sweep_command
from harness.errors import NewerFormatError, StoreFullError
from harness.method import Choice
from harness.plan.need import Need
from harness.plan.plan import Plan, directory
from harness.run import lifecycle
from harness.run.outcome import Outcomes
from harness.run.progress import Lines
from harness.run.record import look_before
from harness.run.resources import Options
from harness.run.worker import Worker
from harness.store.records import read_record, write_record

from toy import Silent, ToyCell, executions, grid, toy_plan  # isort: skip


def work(plan: Plan, **options: Any) -> Worker:
    worker = Worker(plan, Options(**options), Silent())
    worker.run()
    return worker


def outcome_of(root: Path, cell: ToyCell, **options: Any) -> tuple[Worker, dict[str, Any]]:
    plan = toy_plan(root, [cell])
    worker = work(plan, **options)
    return worker, read_record(directory(plan, plan.cells[0]))["outcome"]


def test_shared_stages_run_once_and_every_cell_has_its_record(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path, grid(3, 2))
    assert plan.summary() == "6 cells, 24 stages asked, 19 to run, 0 in the store"
    worker = work(plan)
    assert Counter(executions(tmp_path)) == Counter(plan.wanted())
    assert sorted(worker.executed) == sorted(plan.wanted())
    for cell in plan.cells:
        record = read_record(directory(plan, cell))
        number = int(cell.levels["beta.number"])
        assert record["outcome"]["status"] == "ok"
        assert [m["value"] for m in record["metrics"]] == [number, number]
        assert record["metrics"][0]["evaluator"] == "toy"
        assert record["facts"]["beta"]["product"] == number
        assert record["effects"]["alpha"] == {"toy": 1}
        assert [s["stage"] for s in record["stages"]] == ["alpha", "beta", "gamma", "gamma"]
        assert record["provenance"]["versions"]["torch"]
    seeds = {(s["stage"], s["seed"]) for c in plan.cells for s in read_record(directory(plan, c))["stages"]}
    assert seeds == {("alpha", None), ("beta", 0), ("beta", 1), ("gamma", 0), ("gamma", 1)}


def test_a_finished_sweep_runs_nothing_and_more_seeds_run_only_what_is_new(tmp_path: Path) -> None:
    work(toy_plan(tmp_path, grid(2, 1)))
    before = len(executions(tmp_path))
    plan = toy_plan(tmp_path, grid(2, 1))
    stamp = (directory(plan, plan.cells[0]) / "record.json").stat().st_mtime_ns
    assert work(plan).executed == []
    assert (directory(plan, plan.cells[0]) / "record.json").stat().st_mtime_ns == stamp
    assert len(executions(tmp_path)) == before
    work(toy_plan(tmp_path, grid(2, 2)))
    assert len(executions(tmp_path)) == before + 6


@pytest.mark.parametrize("cores", [1, 2, 64])
def test_a_stage_has_the_threads_of_its_options_on_any_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    monkeypatch.setattr("harness.run.machine.cores", lambda: cores)
    plan = toy_plan(tmp_path, [ToyCell({"beta.number": number, "beta.threads": 2}) for number in (2, 3)])
    work(plan)
    for cell in plan.cells:
        record = read_record(directory(plan, cell))
        assert {stage: facts["threads"] for stage, facts in record["facts"].items() if stage != "gamma"} == {
            "alpha": 1,
            "beta": 2,
        }
        assert [stage["threads"] for stage in record["stages"]] == [1, 2, 1, 1]


def test_a_single_cell_that_leaves_cores_idle_is_told_how_to_use_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_command, "cores", lambda: 8)
    one = toy_plan(tmp_path, [ToyCell({"beta.threads": 2})])
    assert sweep_command.idle_cores(one) == [
        "2 of 8 cores busy at most: threads=8 makes this cell faster, under keys of its own"
    ]
    assert sweep_command.idle_cores(toy_plan(tmp_path, grid(2, 1))) == [], "cells fill them"
    monkeypatch.setattr(sweep_command, "cores", lambda: 2)
    assert sweep_command.idle_cores(one) == []


def test_an_artifact_made_again_brings_its_record_up_to_date(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path, [ToyCell({"beta.number": 7})])
    work(plan)
    place = directory(plan, plan.cells[0])
    record = read_record(place)
    record["metrics"][0]["value"] = 8.0  # as if it had been measured then
    write_record(place, record)
    work(toy_plan(tmp_path, [ToyCell({"beta.number": 7})]))
    assert read_record(place)["metrics"][0]["value"] == 8.0, "nothing was made: the record stands"
    shutil.rmtree(plan.graph.store.path(plan.cells[0].keys[-2]))
    work(toy_plan(tmp_path, [ToyCell({"beta.number": 7})]))
    assert read_record(place)["metrics"][0]["value"] == 7.0


@pytest.mark.parametrize(
    ("fault", "options", "status", "reason"),
    [
        ("raises", {}, "failed", "ValueError: a planted exception"),
        ("diverges", {}, "diverged", "the loss is nan"),
        ("incompatible", {}, "incompatible", "these two cannot work together"),
        ("exits", {}, "failed", "SystemExit: 3"),
        ("allocates", {"memory": 20 * 10**9}, "oom", "MemoryError"),
        ("allocates_with_torch", {"memory": 20 * 10**9}, "oom", "can't allocate memory"),
    ],
)
def test_each_way_to_end_has_its_outcome_and_is_final(
    tmp_path: Path, fault: str, options: dict[str, int], status: str, reason: str
) -> None:
    cell = ToyCell({"beta.fault": fault})
    worker, outcome = outcome_of(tmp_path, cell, **options)
    assert (outcome["status"], outcome["stage"]) == (status, "beta")
    assert reason in outcome["reason"]
    assert outcome["step"] == (7 if fault == "diverges" else None)
    assert worker.outcomes[cell.id].status == status
    _, again = outcome_of(tmp_path, cell, **options)
    assert again["status"] == status
    assert len(executions(tmp_path, "started")) == 2
    retried, _ = outcome_of(tmp_path, cell, retry=frozenset({status}), **options)
    assert len(executions(tmp_path, "started")) == 3
    assert retried.outcomes[cell.id].status == status


def test_oom_is_tried_again_with_more_memory_and_timeout_with_more_time(tmp_path: Path) -> None:
    slow = ToyCell({"beta.seconds": 3.0})
    _, outcome = outcome_of(tmp_path, slow, timeout=0.7)
    assert outcome["status"] == "timeout"
    assert "longer than 0.7 s" in outcome["reason"]
    _, outcome = outcome_of(tmp_path, slow, timeout=0.5)
    assert outcome["status"] == "timeout"
    assert len(executions(tmp_path, "started")) == 2
    _, outcome = outcome_of(tmp_path, slow, timeout=30.0)
    assert outcome["status"] == "ok"


def test_a_stage_that_is_killed_is_lost_and_tried_three_times_in_all(tmp_path: Path) -> None:
    _, outcome = outcome_of(tmp_path, ToyCell({"beta.fault": "killed"}))
    assert outcome["status"] == "lost"
    assert "SIGKILL" in outcome["reason"]
    assert executions(tmp_path, "started").count(executions(tmp_path, "started")[-1]) == 3
    _, outcome = outcome_of(tmp_path, ToyCell({"gamma.fault": "killed_once"}))
    assert outcome["status"] == "ok"


def test_one_bad_cell_neither_stops_nor_hides_the_others(tmp_path: Path) -> None:
    cells = [*grid(2, 1), ToyCell({"beta.fault": "raises"}), ToyCell({"gamma.fault": "killed"})]
    worker = work(toy_plan(tmp_path, cells))
    assert Counter(o.status for o in worker.outcomes.values()) == {"ok": 2, "failed": 1, "lost": 1}


def test_the_last_table_says_how_many_ended_how_and_the_exit_code_whether_all_is_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faults = [ToyCell({"beta.fault": fault}) for fault in ("raises", "diverges", "incompatible")]
    assert sweep_command.work(toy_plan(tmp_path, [*grid(2, 1), *faults]), Options()) == 1
    said = capsys.readouterr().out
    rows = [line.split() for line in said.splitlines() if line.startswith("\u2502")]
    counts = {row[1]: int(row[3]) for row in rows}
    assert counts == {"ok": 2, "diverged": 1, "incompatible": 1, "failed": 1}
    assert "failed at beta (1): ValueError: a planted exception\n" in said
    assert "hydra.sweeper.retry=" in said
    assert sweep_command.work(toy_plan(tmp_path, [*grid(2, 1), faults[2]]), Options()) == 0, "a known result"


def test_a_worker_with_little_room_leaves_large_stages_and_ends(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path, grid(2, 1))
    worker = Worker(plan, Options(), Silent(), room=Need(processes=0))
    assert worker.run() == {}
    assert executions(tmp_path, "started") == []
    work(toy_plan(tmp_path, grid(2, 1)))
    shutil.rmtree(tmp_path / "records")
    counting = Worker(plan, Options(), Silent(), room=Need(processes=0))
    assert counting.run() == {"ok": 2}, "what others made is counted and recorded"


def test_what_a_stage_leaves_running_ends_with_it(tmp_path: Path) -> None:
    outcome_of(tmp_path, ToyCell({"beta.fault": "leaves_children"}))
    pid = int((tmp_path / "grandchild").read_text())
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists() or " Z " in Path(f"/proc/{pid}/stat").read_text():
            return
        time.sleep(0.02)
    pytest.fail("the grandchild outlived its stage")


def test_a_full_disk_pauses_the_sweep_and_is_no_outcome(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path, [ToyCell({"beta.fault": "fills_disk"}), ToyCell({})])
    worker = Worker(plan, Options(workers=1), Silent())
    with pytest.raises(StoreFullError, match="run the same command again"):
        worker.run()
    assert Outcomes(tmp_path).read(plan.cells[0].keys[1]) is None
    assert not (directory(plan, plan.cells[0]) / "record.json").exists()
    assert worker._store.claims.names() == []


def test_a_record_of_a_newer_version_is_neither_read_nor_overwritten(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path, grid(1, 1))
    work(plan)
    file = directory(plan, plan.cells[0]) / "record.json"
    newer = json.dumps({**json.loads(file.read_text()), "format": 99, "outcome": "something new"})
    file.write_text(newer)
    with pytest.raises(NewerFormatError, match="by a newer version of harness"):
        look_before(plan)
    with pytest.raises(NewerFormatError):
        work(toy_plan(tmp_path, grid(1, 1)))
    assert file.read_text() == newer


@pytest.mark.parametrize("content", ["", "[]", '{"format":1}', "\0\0"])
def test_a_damaged_record_is_set_aside_named_and_written_anew(tmp_path: Path, content: str) -> None:
    plan = toy_plan(tmp_path, grid(1, 1))
    work(plan)
    file = directory(plan, plan.cells[0]) / "record.json"
    file.write_text(content)
    (note,) = look_before(plan)
    assert note.startswith(f"{file} is not a record: ")
    (aside,) = (tmp_path / "corrupt").iterdir()
    assert note.endswith(f"(it was moved to {aside})")
    assert aside.read_text() == content
    assert work(toy_plan(tmp_path, grid(1, 1))).executed == []
    assert read_record(file)["outcome"]["status"] == "ok"
    assert look_before(plan) == []


def test_a_damaged_artifact_is_built_again(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path, grid(1, 1))
    work(plan)
    alpha = plan.cells[0].keys[0]
    (plan.graph.store.path(alpha) / "number").write_text("")
    assert work(toy_plan(tmp_path, grid(1, 1))).executed == [alpha]


class Broken(Tracker):
    """Fails when the run starts, like wandb without a login."""

    name = "broken_for_tests"

    def run_started(self, run: dict[str, Any]) -> None:
        raise RuntimeError("no login; run `wandb login` or set WANDB_MODE=offline")


class Listening(Tracker):
    """Remembers everything it is told."""

    name = "listening_for_tests"
    heard: list[tuple[Any, ...]] = []  # noqa: RUF012

    def run_started(self, run: dict[str, Any]) -> None:
        self.heard.append(("run", run["cell"], sorted(run)))

    def training_step(self, run: dict[str, Any], stage: str, step: int, facts: dict[str, float]) -> None:
        self.heard.append(("step", stage, step))

    def stage_finished(self, run: dict[str, Any], stage: str, facts: dict[str, Any]) -> None:
        self.heard.append(("stage", stage, facts["reused"]))

    def cell_finished(self, run: dict[str, Any], record: dict[str, Any]) -> None:
        self.heard.append(("cell", record["outcome"]["status"]))


def tracked(*trackers: type[Tracker], number: int) -> ToyCell:
    chosen = tuple(Choice(axis="tracker", method=t, config=t.Config()) for t in trackers)
    return ToyCell({"gamma.number": number}, trackers=chosen)


def test_trackers_hear_every_event_of_a_cell_also_of_stages_that_were_reused(tmp_path: Path) -> None:
    Listening.heard.clear()
    work(toy_plan(tmp_path, [tracked(Listening, number=2)]), workers=1)
    first = list(Listening.heard)
    assert first[0][0] == "run"
    assert {"cell", "config", "sweep", "provenance", "directory"} <= set(first[0][2])
    assert [e for e in first if e[0] == "step" and e[1] == "beta"] == [("step", "beta", i) for i in range(5)]
    assert [e[1] for e in first if e[0] == "stage"] == [
        "alpha", "beta", "gamma.toy.first", "gamma.toy.second"
    ]  # fmt: skip
    assert first[-1] == ("cell", "ok")
    Listening.heard.clear()
    work(toy_plan(tmp_path, [tracked(Listening, number=3)]), workers=1)
    assert ("stage", "beta", True) in Listening.heard
    assert ("step", "beta", 4) in Listening.heard


def test_a_tracker_that_fails_is_a_note_of_the_record_and_costs_no_cell(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path, [tracked(Broken, number=2)])
    worker = work(plan)
    record = read_record(directory(plan, plan.cells[0]))
    assert record["outcome"]["status"] == "ok"
    assert "wandb login" in record["notes"]["broken_for_tests"]
    assert any("broken_for_tests failed" in text for text in worker.view.said)  # type: ignore[attr-defined]


class Leaving(Tracker):
    """Ends its process when it is told of a stage."""

    name = "leaving_for_tests"

    def stage_finished(self, run: dict[str, Any], stage: str, facts: dict[str, Any]) -> None:
        sys.exit("no connection")


def test_a_tracker_that_ends_its_process_costs_no_cell(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path, [tracked(Leaving, number=2)])
    work(plan)
    record = read_record(directory(plan, plan.cells[0]))
    assert record["outcome"]["status"] == "ok"
    assert "no connection" in record["notes"]["leaving_for_tests"]


class Hanging(Tracker):
    """Never comes back from the server, and takes an interruption for a lost connection once."""

    name = "hanging_for_tests"
    tries: ClassVar[list[str]] = []

    def run_started(self, run: dict[str, Any]) -> None:
        for _ in range(2):
            with contextlib.suppress(Exception):
                self.tries.append(run["cell"])
                time.sleep(30)
        time.sleep(30)


def test_a_tracker_that_hangs_is_left_alone_and_costs_one_cell_its_patience_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "PATIENCE", 0.05)
    Hanging.tries.clear()
    plan = toy_plan(tmp_path, [tracked(Hanging, number=2), tracked(Hanging, number=3)])
    began = time.monotonic()
    work(plan, workers=1)
    assert time.monotonic() - began < 20
    records = [read_record(directory(plan, cell)) for cell in plan.cells]
    assert [r["outcome"]["status"] for r in records] == ["ok", "ok"]
    assert sorted(r["notes"]["hanging_for_tests"] for r in records) == [
        "NoAnswerError: no answer within 0.05 s",
        "not told of this cell: no answer within 0.05 s",
    ]
    assert len(set(Hanging.tries)) == 1
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


SWEEP = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from toy import grid, toy_plan
from harness.run.resources import Options
from harness.run.worker import Worker
from harness.run.progress import Lines
plan = toy_plan(Path({root!r}), grid({levels}, 2, **{options!r}))
Worker(plan, Options(workers=2), Lines(plan)).run()
"""


def start(root: Path, *, levels: int, **options: Any) -> warm.Process:
    code = SWEEP.format(
        path=[str(Path(__file__).parents[1] / "support")], root=str(root), levels=levels, options=options
    )
    log = root / f"process{time.monotonic_ns()}.log"
    return warm.start(["-c", code], cwd=Path.cwd(), environment=os.environ, stdout=log, stderr=log)


def run_concurrently(root: Path, *, levels: int, kills: int, seconds: float) -> None:
    """Three processes on one store; some are killed at random moments and started again."""
    import random

    root.mkdir(parents=True, exist_ok=True)
    random.seed(str(root.name))
    processes = [start(root, levels=levels, **{"beta.seconds": seconds}) for _ in range(3)]
    for _ in range(kills):
        time.sleep(random.uniform(0.5, 2.0))
        victim = random.randrange(3)
        processes[victim].kill()
        processes[victim].wait()
        processes[victim] = start(root, levels=levels, **{"beta.seconds": seconds})
    for process in processes:
        assert process.wait(timeout=120) == 0


def check_every_stage_once(root: Path, *, levels: int, seconds: float, kills: int = 0) -> None:
    """Every stage made once: never twice at a time, never again once stored, and no more than was killed."""
    plan = toy_plan(root, grid(levels, 2, **{"beta.seconds": seconds}))
    assert plan.missing() == []
    assert set(executions(root)) == set(plan.wanted())
    assert executions(root, "overlaps") == executions(root, "again") == []
    # A killed process had two stages at most.
    assert len(executions(root, "started")) <= len(plan.wanted()) + 2 * kills
    for key in plan.wanted():
        plan.graph.store.verify(key)
    for cell in plan.cells:
        record = read_record(directory(plan, cell))
        number = int(cell.levels["beta.number"])
        assert [m["value"] for m in record["metrics"]] == [number, number]
    assert plan.graph.store.claims.names() == []
    assert list((root / "tmp").iterdir()) == []


@pytest.mark.parametrize("round_number", turns.fast(range(3), [0]))
def test_three_processes_on_one_store_never_do_a_stage_twice(tmp_path: Path, round_number: int) -> None:
    root = tmp_path / f"round{round_number}"
    run_concurrently(root, levels=3, kills=2, seconds=0.3)
    check_every_stage_once(root, levels=3, seconds=0.3, kills=2)


@pytest.mark.slow
@pytest.mark.parametrize("round_number", range(20))
def test_three_processes_many_rounds(tmp_path: Path, round_number: int) -> None:
    root = tmp_path / f"slow{round_number}"
    run_concurrently(root, levels=8, kills=5, seconds=0.6)
    check_every_stage_once(root, levels=8, seconds=0.6, kills=5)


def wait_for(condition: Any, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def test_ctrl_c_once_finishes_what_runs_and_starts_nothing_more(tmp_path: Path) -> None:
    process = start(tmp_path, levels=2, **{"beta.seconds": 1.0})
    wait_for(lambda: len(executions(tmp_path, "started")) >= 2)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) != 0
    assert Counter(executions(tmp_path)) == Counter(executions(tmp_path, "started"))
    assert len(executions(tmp_path)) < 13
    assert toy_plan(tmp_path, []).graph.store.claims.names() == []
    assert start(tmp_path, levels=2, **{"beta.seconds": 1.0}).wait(timeout=120) == 0
    check_every_stage_once(tmp_path, levels=2, seconds=1.0)


def test_ctrl_c_twice_stops_at_once_and_loses_no_checkpoint(tmp_path: Path) -> None:
    betas = [c.keys[1] for c in toy_plan(tmp_path, grid(1, 2, **{"beta.seconds": 25.0})).cells]
    process = start(tmp_path, levels=1, **{"beta.seconds": 25.0})
    wait_for(lambda: any((tmp_path / "partial" / beta / "step0").exists() for beta in betas))
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) != 0
    assert set(executions(tmp_path)).isdisjoint(betas)
    assert any((tmp_path / "partial" / beta / "step0").exists() for beta in betas)
    assert not list((tmp_path / "outcomes").glob("*/*"))
    assert toy_plan(tmp_path, []).graph.store.claims.names() == []


def test_a_sweep_shows_progress_as_plain_lines_without_a_terminal(tmp_path: Path) -> None:
    process = start(tmp_path, levels=1)
    assert process.wait(timeout=120) == 0
    text = next(tmp_path.glob("process*.log")).read_text()
    assert "alpha  ok in" in text
    assert "cell 2/2" in text


def test_the_options_of_a_worker_say_nothing_about_results() -> None:
    assert json.dumps(sorted(Options.__dataclass_fields__)) == json.dumps(
        ["memory", "patience", "retry", "timeout", "total_memory", "workers"]
    )
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_a_failed_stage_names_its_log_and_a_diverged_one_its_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faults = [ToyCell({"beta.fault": fault}) for fault in ("raises", "diverges")]
    plan = toy_plan(tmp_path, faults)
    Worker(plan, Options(), Lines(plan)).run()
    said = capsys.readouterr().err
    assert re.search(r"beta  diverged in \S+ s at step 7: the loss is nan\n", said)
    (log,) = re.findall(r"a planted exception \(log: (.+)\)", said)
    assert "Traceback" in Path(log).read_text()
