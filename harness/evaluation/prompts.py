"""Prompts to answer: a skill's test items, or a file."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import DataError

if TYPE_CHECKING:
    from harness.data.skills import Item

PROMPT_KEYS = ("prompt", "instruction", "question")
PROMPT_FILES = (".json", ".jsonl", ".gz")
"""How names of files of prompts end; what ends otherwise is a skill."""
ANSWER_KEYS = ("answer", "output", "completion", "response")


def read_items(source: str, *, limit: int) -> list[Item]:
    """The first `limit` items of a skill's test split, or of a JSON (lines) file.

    A row has a prompt (`prompt`, `instruction` with `input`, or `question`), maybe an answer (`answer`,
    `output`, `completion` or `response`) and `checks`.
    Raises: DataError naming file and row; UnknownNameError where neither a file nor a skill has this name
    """
    if not source.endswith(PROMPT_FILES):
        return list(_skill_items(source, limit))
    from harness.evaluation.lm_tasks import read_rows

    rows = read_rows(Path(source))
    if not rows:
        raise DataError(f"{source} has no rows")
    return [_item(row, f"{source}, row {index + 1}") for index, row in enumerate(rows[:limit])]


@cache
def _skill_items(skill: str, limit: int) -> tuple[Item, ...]:
    """A skill's first test items: name and number decide them, and the plan of a sweep asks in every cell."""
    from harness.data.skills import skill_items

    return tuple(skill_items(skill, "test", seed=0, n=limit))


def _item(row: Any, where: str) -> Item:
    from harness.data.skills import Item

    prompt = next((str(row[key]) for key in PROMPT_KEYS if row.get(key)), "")
    if not prompt:
        raise DataError(f"{where} has no prompt; name it one of {', '.join(PROMPT_KEYS)}")
    if row.get("input"):
        prompt = f"{prompt}\n{row['input']}"
    answer = next((str(row[key]) for key in ANSWER_KEYS if row.get(key)), "")
    checks = row.get("checks") or {}
    return Item(id=where, skill="", prompt=prompt, answer=answer, checks=dict(checks))
