"""Prompts to answer: a skill's test items, or a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import DataError, HarnessError
from harness.method import Problem

if TYPE_CHECKING:
    from harness.data.skills import Item

PROMPT_KEYS = ("prompt", "instruction", "question")
PROMPT_FILES = (".json", ".jsonl", ".gz")
"""How names of files of prompts end; what ends otherwise is a skill."""
ANSWER_KEYS = ("answer", "output", "completion", "response")


def read_items(source: str, *, limit: int, split: str = "test") -> list[Item]:
    """The first `limit` items of a skill's split, or of a JSON (lines) file.

    A row has a prompt (`prompt`, `instruction` with `input`, or `question`), maybe an answer (`answer`,
    `output`, `completion` or `response`), `checks`, and `split`; without one it is of the test split.
    Raises: DataError naming file and row; UnknownNameError where neither a file nor a skill has this name
    """
    if not source.endswith(PROMPT_FILES):
        return list(_skill_items(source, limit, split))
    from harness.evaluation.lm_tasks import item_rows

    rows = item_rows(Path(source))
    if not rows:
        raise DataError(f"{source} has no rows")
    chosen = [place for place, row in enumerate(rows) if row.get("split", "test") == split]
    if not chosen:
        raise DataError(
            f"{source} has no row of the {split} split; say it in the rows, {json.dumps({'split': split})}"
        )
    return [_item(rows[place], f"{source}, row {place + 1}") for place in chosen[:limit]]


def misread(source: str, *, limit: int, where: str) -> Iterator[Problem]:
    """What keeps prompts from being read, of a plan; `where` is the option that names them."""
    try:
        read_items(source, limit=limit)
    except (HarnessError, OSError) as error:
        yield Problem(where=where, message=str(error))


@cache
def _skill_items(skill: str, limit: int, split: str) -> tuple[Item, ...]:
    """A skill's first items: name, number and split decide them; the plan of a sweep asks in every cell."""
    from harness.data.skills import skill_items

    return tuple(skill_items(skill, split, seed=0, n=limit))


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
