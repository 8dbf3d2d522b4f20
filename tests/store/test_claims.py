"""Claims: one holder at a time, dead ones taken over exactly once, no trust in foreign clocks."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.store import claims as module
from harness.store.claims import Claims


@pytest.fixture
def claims(tmp_path: Path) -> Claims:
    return Claims(tmp_path / "claims", heartbeat=0.05, stale=0.3)


def foreign(claims: Claims, name: str, **changes: object) -> Path:
    """A claim of a process on another machine."""
    claims.root.mkdir(parents=True, exist_ok=True)
    path = claims.root / name
    path.write_text(json.dumps({"token": "theirs", "host": "far", "pid": 1, "boot": "other", **changes}))
    return path


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_claim_has_one_holder_until_it_is_released(claims: Claims) -> None:
    first = claims.acquire("key")
    assert first is not None
    assert claims.acquire("key") is None
    first.release()
    second = claims.acquire("key")
    assert second is not None
    second.release()
    assert claims.names() == []


def test_the_claim_of_a_process_that_is_gone_is_taken_over_at_once(claims: Claims) -> None:
    foreign(claims, "key", pid=dead_pid(), boot=module._boot(), started="1")
    claim = claims.acquire("key")
    assert claim is not None
    claim.release()


def test_claims_of_the_dead_are_released_and_those_of_the_living_kept(claims: Claims) -> None:
    foreign(claims, "dead", pid=dead_pid(), boot=module._boot(), started="1")
    foreign(claims, "far")
    mine = claims.acquire("mine")
    assert mine is not None
    claims.release_dead(claims.names())
    assert claims.names() == ["far", "mine"]
    mine.release()


def test_a_process_id_used_again_is_not_mistaken_for_the_holder(claims: Claims) -> None:
    foreign(claims, "key", pid=os.getpid(), boot=module._boot(), started="not my start")
    claim = claims.acquire("key")
    assert claim is not None
    claim.release()


def test_a_silent_claim_of_another_machine_is_taken_over_after_a_while(claims: Claims) -> None:
    foreign(claims, "key")
    assert claims.acquire("key") is None
    time.sleep(0.4)
    claim = claims.acquire("key")
    assert claim is not None
    claim.release()


def test_a_process_of_this_machine_that_is_stopped_is_taken_over_after_a_while(claims: Claims) -> None:
    """It lives, and gives no sign: SIGSTOP, a hanging disk, a debugger."""
    foreign(claims, "key", pid=os.getpid(), boot=module._boot(), started=module._start_time(os.getpid()))
    assert claims.acquire("key") is None
    time.sleep(0.4)
    claim = claims.acquire("key")
    assert claim is not None
    claim.release()


def test_a_beating_claim_of_another_machine_is_left_alone(claims: Claims) -> None:
    path = foreign(claims, "key")
    for _ in range(8):
        assert claims.acquire("key") is None
        os.utime(path)
        time.sleep(0.06)


@pytest.mark.parametrize("offset", [10 * 365 * 86400, -10 * 365 * 86400])
def test_a_claim_whose_clock_is_wrong_is_watched_like_any_other(claims: Claims, offset: int) -> None:
    path = foreign(claims, "key", since=time.time() + offset)
    os.utime(path, (time.time() + offset,) * 2)
    assert claims.acquire("key") is None
    time.sleep(0.4)
    claim = claims.acquire("key")
    assert claim is not None
    claim.release()


def test_a_half_written_claim_is_taken_over_after_a_while(claims: Claims) -> None:
    foreign(claims, "key").write_text('{"tok')
    assert claims.acquire("key") is None
    time.sleep(0.4)
    claim = claims.acquire("key")
    assert claim is not None
    claim.release()


def test_a_holder_whose_claim_was_taken_over_learns_of_it_and_does_not_release_it(claims: Claims) -> None:
    mine = claims.acquire("key")
    assert mine is not None
    module._replace(mine.path, {"token": "theirs"})
    for _ in range(100):
        if mine.lost:
            break
        time.sleep(0.02)
    assert mine.lost
    mine.release()
    assert (claims.root / "key").exists()


def test_a_takeover_ends_what_is_left_of_the_dead_holders_work(claims: Claims) -> None:
    orphan = subprocess.Popen(["sleep", "60"], start_new_session=True)
    worker = [orphan.pid, module._start_time(orphan.pid)]
    foreign(claims, "key", pid=dead_pid(), boot=module._boot(), started="1", worker=worker)
    claim = claims.acquire("key")
    assert claim is not None
    assert orphan.wait(timeout=5) == -signal.SIGKILL
    claim.release()


def test_a_process_is_alive_until_its_last_thread_is_gone() -> None:
    """Its first thread may end before: what the others hold is held."""
    code = "import ctypes, threading, time; threading.Thread(target=time.sleep, args=(60,)).start(); "
    leaves = code + "print(1, flush=True); ctypes.CDLL(None).pthread_exit(None)"
    process = subprocess.Popen([sys.executable, "-c", leaves], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"1\n"
    started = module._start_time(process.pid)
    status = Path(f"/proc/{process.pid}/stat")
    for _ in range(500):
        if status.read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.01)
    assert status.read_text().rpartition(")")[2].split()[0] == "Z"
    assert module._alive(process.pid, started)
    process.kill()
    process.wait(timeout=5)
    assert not module._alive(process.pid, started)


def test_a_claim_is_not_taken_over_while_the_dead_holders_work_cannot_be_ended(
    claims: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_end_worker", lambda owner: False)
    foreign(claims, "key", pid=dead_pid(), boot=module._boot(), started="1", worker=[1, "1"])
    assert claims.acquire("key") is None
    monkeypatch.undo()
    claim = claims.acquire("key")
    assert claim is not None
    claim.release()


def _race(root: Path, start: float, won: "multiprocessing.Queue[int]") -> None:
    claims = Claims(root, heartbeat=5, stale=60)
    time.sleep(max(0.0, start - time.time()))
    claim = claims.acquire("key")
    if claim is not None:
        won.put(os.getpid())
        time.sleep(1.0)


def test_of_several_processes_that_race_for_a_dead_claim_exactly_one_gets_it(claims: Claims) -> None:
    context = multiprocessing.get_context("fork")
    for _ in range(5):
        foreign(claims, "key", pid=dead_pid(), boot=module._boot(), started="1")
        won = context.Queue()
        start = time.time() + 0.2
        racers = [context.Process(target=_race, args=(claims.root, start, won)) for _ in range(6)]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
        winners = []
        while not won.empty():
            winners.append(won.get())
        assert len(winners) == 1


def test_file_systems_without_hard_links_work_too(claims: Claims, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    claim = claims.acquire("key")
    assert claim is not None
    assert claims.acquire("key") is None
    claim.release()
