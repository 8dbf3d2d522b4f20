"""Prompts: a skill's items are drawn once in a process, whoever asks and however often."""

import json
from pathlib import Path
from unittest.mock import Mock

import pytest

from harness.data import skills
from harness.evaluation.prompts import read_items


def test_a_skill_is_drawn_once_and_no_caller_can_change_what_the_next_one_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draw = Mock(wraps=skills.FAMILIES["repeat"])
    monkeypatch.setitem(skills.FAMILIES, "repeat", draw)
    first = read_items("repeat", limit=11)
    expected, draws = list(first), draw.call_count
    assert draws
    first.clear()
    assert read_items("repeat", limit=11) == expected
    assert draw.call_count == draws


def test_a_smaller_limit_is_a_prefix() -> None:
    assert read_items("recall", limit=5) == read_items("recall", limit=12)[:5]


def test_a_file_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "prompts.json"
    for prompt in ("one", "two"):
        path.write_text(json.dumps([{"prompt": prompt}]))
        assert [item.prompt for item in read_items(str(path), limit=3)] == [prompt]
