"""Tests in turns: all that run decide, the rest is counted, and another turn begins elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from turns import place

SUPPORT = Path(__file__).parents[1] / "support"
CONFTEST = """
import sys
sys.path.insert(0, {path!r})
import turns
def pytest_addoption(parser):
    turns.add_options(parser)
def pytest_configure(config):
    turns.register(config)
"""
ONE = """
import turns, types
def test_one(): turns.time = types.SimpleNamespace(time=lambda: 1e12)
def test_two(): pass
"""
"""The first test of a process takes until the end of time."""
FILES = ("test_a.py", "test_b.py", "test_c.py")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "conftest.py").write_text(CONFTEST.format(path=str(SUPPORT)))
    for name in FILES:
        (tmp_path / name).write_text(ONE)
    return tmp_path


def run(folder: Path, *words: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-v", *words, "."]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def order(turn: str) -> list[str]:
    return sorted(FILES, key=lambda name: place(f"{name}::test_one", turn))


def test_every_file_comes_first_in_some_turn() -> None:
    assert {order(str(number))[0] for number in range(20)} == set(FILES)


def test_those_that_ran_decide_and_the_others_are_counted(folder: Path) -> None:
    first, *others = order("1")
    code, said = run(folder, "--turn=1", "--within=600")
    assert code == 0
    assert "1 of 6 tests had their turn in 600 s" in said
    assert re.search(rf"{first}::test_one PASSED", said)
    for name in (first, *others):
        (folder / name).write_text("def test_one(): assert False\n")
    code, said = run(folder, "--turn=1", "--within=600", "-n2", "--dist=loadfile", "--no-loadscope-reorder")
    assert (code, "3 of 3 tests had their turn in 600 s" in said) == (1, True)
    code, said = run(folder, "--within=0")
    assert (code, "0 of 3 tests had their turn in 0 s" in said) == (0, True)


def test_workers_end_at_the_time_of_the_whole_run(folder: Path) -> None:
    code, said = run(folder, "--turn=1", "--within=0", "-n2", "--dist=loadfile")
    assert (code, "0 of 6 tests had their turn in 0 s" in said) == (0, True)
