"""Commands of the documentation, typed as a reader would type them, in a folder of his own."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from third_party import ROOT

from harness.report.compact import read_compact

pytestmark = pytest.mark.slow

FENCE = re.compile(r"^ *```console\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"^ *\$ ((?:.*\\\n)*.*)\n((?:(?! *\$ ).*\n)*)", re.MULTILINE)
OWN_DATA = ROOT / "docs" / "start" / "own-data.md"
FAQ = ROOT / "docs" / "start" / "faq.md"
STAGES = sorted((ROOT / "docs" / "stages").glob("*.md"))


def commands(page: Path) -> Iterator[tuple[str, str]]:
    """(command of harness without a comment, what the page shows below it)."""
    for block in FENCE.findall(page.read_text(encoding="utf-8")):
        for typed, shown in COMMAND.findall(block):
            command = re.sub(r"\s+#.*", "", re.sub(r"\\\n\s*", "", typed))
            if command.startswith("harness "):
                yield command, shown


def typed(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "HARNESS_STORE"}
    environment |= {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'plugins'}",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
    }
    words = [sys.executable, "-m", *shlex.split(command)]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def pattern(shown: str) -> str:
    """What a page shows, as what may be printed: lines are broken anywhere, and `...` stands for anything."""
    parts = (r"\s+".join(map(re.escape, part.split())) for part in shown.split("..."))
    return r"[\s\S]*?".join(parts)


ASKED = [
    (command, shown)
    for command, shown in commands(FAQ)
    if "stages=" not in command and "efficiency" not in command  # a model to begin with, a busy machine
]


@pytest.mark.parametrize(("command", "shown"), ASKED, ids=[command for command, _ in ASKED])
def test_the_faq_shows_what_is_printed(command: str, shown: str, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"text": "One."}\n{"txt": "Two."}\n')
    found = read_compact(ROOT / "reports" / "demo" / "records.json.gz")[0]
    for name in ("mine", "run"):
        record = tmp_path / ".harness" / "records" / name / found.cell / "record.json"
        record.parent.mkdir(parents=True)
        record.write_text(json.dumps(found.data, default=str))
    printed = typed(command, tmp_path)
    said = f"{printed.stdout}\n{printed.stderr}"
    assert re.search(pattern(shown), said), f"{command} prints:\n{said}"


@pytest.fixture
def own_data(tmp_path: Path) -> Path:
    """The files that the page on one's own data speaks of."""
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(60):
        words = " ".join(f"river{number % 7} stone{(number * word) % 31} walks." for word in range(40))
        (texts / f"{number:02d}.txt").write_text(f"Chapter {number}. {words}\n")
    chats = [
        {
            "messages": [
                {"role": "user", "content": f"How many, {n}?"},
                {"role": "assistant", "content": f"{n % 9}."},
            ]
        }
        for n in range(120)
    ]
    pairs = [
        {"prompt": f"How many, {n}?", "chosen": f"{n % 9}.", "rejected": "None at all."} for n in range(120)
    ]
    questions = [
        {"question": f"What is {n} plus 3?", "choices": ["5", "7", "4"], "answer": n % 3} for n in range(12)
    ]
    rows = [
        {"text": "Write to ada@example.org about it."},
        {"text": "A forbidden word."},
        {"text": "A clean one."},
    ]
    for name, found in (("chats", chats), ("preferences", pairs), ("questions", questions), ("rows", rows)):
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in found))
    (tmp_path / "FILE.txt").write_text("To be, or not to be: that is the question.\n" * 900)
    task = re.search(r"```yaml\n# tasks/arithmetic.yaml\n(.*?)```", OWN_DATA.read_text(), re.DOTALL)
    assert task is not None
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "arithmetic.yaml").write_text(task[1])
    return tmp_path


def of_this_folder(command: str, folder: Path) -> str:
    """A command with a record of this folder in place of the page's own."""

    def record(found: re.Match[str]) -> str:
        cells = sorted((folder / ".harness" / "records" / found[1]).glob("*/record.json"))
        return f"{found[1]}/{cells[0].parent.name}"

    return re.sub(r"(\w+)/[0-9a-f]{16}\b", record, command)


def test_own_data_in_ten_minutes(own_data: Path) -> None:
    for command, _ in commands(OWN_DATA):
        small = "" if "scale=" in command or command.split()[1] not in ("run", "sweep") else " scale=smoke"
        done = typed(of_this_folder(command, own_data) + small, own_data)
        assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stdout + done.stderr


RUNS = list(dict.fromkeys(command for page in STAGES for command, _ in commands(page)))


@pytest.mark.parametrize("command", RUNS)
def test_the_examples_of_stages_run(command: str, tmp_path: Path) -> None:
    done = typed(command, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "page", ["README.md", "docs/start/experiments.md", "docs/start/tune.md", "docs/write/stage.md"]
)
def test_what_pages_sweep_can_be_planned(page: str, tmp_path: Path) -> None:
    """Sweeps of hours are planned only; what a page shows as refused is refused with these words."""
    for command, shown in commands(ROOT / page):
        word = command.split()[1]
        if "perturb" in command or word not in ("list", "run", "sweep", "plan"):
            continue
        small = "" if word == "list" or "scale=" in command else " scale=smoke"
        done = typed(re.sub(r"^harness (run|sweep)", "harness plan", command) + small, tmp_path)
        said = f"{done.stdout}\n{done.stderr}"
        assert done.returncode == 0 or re.search(pattern(shown), said), f"{command}:\n{said}"


def test_the_commands_on_committed_reports_run(tmp_path: Path) -> None:
    """Those of the page on layouts that need no records of the reader's own, with the layout it shows."""
    page = ROOT / "docs" / "write" / "report.md"
    layout = re.search(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)
    assert layout is not None
    (tmp_path / "mine.yaml").write_text(layout[1])
    (tmp_path / "reports").symlink_to(ROOT / "reports")
    asked = [command for command, _ in commands(page) if "--store" in command or "--table T" in command]
    assert len(asked) == 2
    for command in asked:
        done = typed(command, tmp_path)
        assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"


def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    code = re.search(r"```python\n(import harness\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert code is not None
    (tmp_path / "script.py").write_text(code[1].replace('harness.records("demo")', "harness.records(frame)"))
    done = typed("script", tmp_path)
    assert done.returncode == 0, done.stderr
