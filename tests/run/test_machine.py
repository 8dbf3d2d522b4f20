"""What a control group leaves of the machine's memory, as schedulers and containers set it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.run import machine

MIB = 2**20
SECOND = {"memory.max": "{limit}", "memory.current": "{used}", "memory.stat": "anon 1\ninactive_file {cache}"}
FIRST = {
    "memory.limit_in_bytes": "{limit}",
    "memory.usage_in_bytes": "{used}",
    "memory.stat": "cache 1\ntotal_inactive_file {cache}",
}


def group(folder: Path, files: dict[str, str], *, limit: int | str, used: int, cache: int) -> Path:
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text.format(limit=limit, used=used, cache=cache) + "\n")
    return folder


@pytest.mark.parametrize("files", [FIRST, SECOND])
def test_the_least_limit_of_a_group_or_those_around_it_holds(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outer = group(tmp_path / "job", files, limit=64 * MIB, used=60 * MIB, cache=8 * MIB)
    inner = group(outer / "step", files, limit=48 * MIB, used=8 * MIB, cache=0)
    monkeypatch.setattr(machine, "control_groups", lambda: [inner, outer])
    assert machine.memory() == 48 * MIB
    assert machine.available_memory() == 12 * MIB, "files that could be dropped are free"


def test_a_group_without_a_limit_leaves_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "control_groups", list)
    memory = machine.memory()
    free = group(tmp_path / "group", SECOND, limit="max", used=0, cache=0)
    monkeypatch.setattr(machine, "control_groups", lambda: [free])
    assert machine.memory() == memory
    assert 0 < machine.available_memory() <= memory


def test_this_process_is_in_a_group_that_exists_where_there_are_groups() -> None:
    assert all(folder.is_relative_to(machine.CONTROL_GROUPS) for folder in machine.control_groups())
