"""Prompts to answer: a skill's test items, or a file."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.data.messages import messages_in, plain_text, turns_of
from harness.data.reading import ROWS
from harness.errors import DataError, HarnessError
from harness.method import Problem

if TYPE_CHECKING:
    from harness.data.skills import Item

PROMPT_KEYS = ("prompt", "instruction", "question")
PROMPT_FILES = ROWS
"""How names of files of prompts end; what ends otherwise is a skill."""
ANSWER_KEYS = ("answer", "output", "completion", "response")


def read_items(source: str, *, limit: int, split: str = "test", validation_share: float = 0.0) -> list[Item]:
    """The first `limit` items of a skill's split, or of a file with rows.

    A row has a prompt (`prompt`, `instruction` with `input`, or `question`), maybe an answer (`answer`,
    `output`, `completion` or `response`), `checks`, and `split`; without one it is of the test split, or of
    validation where its hash falls into `validation_share`.
    Raises: DataError naming file and row; UnknownNameError where neither a file nor a skill has this name
    """
    if not source.lower().endswith(PROMPT_FILES):
        return list(_skill_items(source, limit, split))
    from harness.evaluation.lm_tasks import item_rows

    rows = item_rows(Path(source))
    if not rows:
        raise DataError(f"{source} has no rows")
    chosen = [
        place
        for place, row in enumerate(rows)
        if (row.get("split") or _split_by_hash(row, validation_share)) == split
    ]
    if not chosen:
        raise DataError(
            f"{source} has no row of the {split} split; say it in the rows, {json.dumps({'split': split})}"
        )
    return [_item(rows[place], f"{source}, row {place + 1}") for place in chosen[:limit]]


def _split_by_hash(row: Mapping[str, Any], validation_share: float) -> str:
    """The split of a row that states none: its own content decides, so that other rows move nothing."""
    if not validation_share:
        return "test"
    drawn = int.from_bytes(hashlib.sha256(json.dumps(row, sort_keys=True).encode()).digest()[:8], "big")
    return "validation" if drawn < validation_share * 2**64 else "test"


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


def read_answers(file: str) -> dict[str, list[str]]:
    """Answers of a file by their prompts, as `same_prompt` compares them; a repeated prompt has several.

    Raises: DataError naming file and row of what has no prompt
    """
    from harness.evaluation.lm_tasks import item_rows

    found: dict[str, list[str]] = {}
    for place, row in enumerate(item_rows(Path(file))):
        if any(key in row for key in ANSWER_KEYS):
            item = _item(row, f"{file}, row {place + 1}")
            found.setdefault(same_prompt(item.prompt), []).append(item.answer)
    return found


def same_prompt(prompt: str) -> str:
    """A prompt without what differs between files that ask the same: ends of lines, blanks around it."""
    return prompt.replace("\r\n", "\n").strip()


def item_hashes(texts: Sequence[str]) -> list[str]:
    """A hash of each text, by which cells pair their items; of a repeated one, with how often before."""
    before, found = Counter[str](), list[str]()
    for text in texts:
        again = f"\0{before[text]}" if before[text] else ""
        found.append(hashlib.sha256(f"{text}{again}".encode()).hexdigest())
        before[text] += 1
    return found


def _item(row: Any, where: str) -> Item:
    from harness.data.skills import Item

    prompt = _text(row, PROMPT_KEYS, where)
    if not prompt.strip():
        raise DataError(f"{where} has no prompt; name it one of {', '.join(PROMPT_KEYS)}")
    if given := _text(row, ("input",), where):
        prompt = f"{prompt}\n{given}"
    checks = row.get("checks") or {}
    return Item(id=where, skill="", prompt=prompt, answer=_text(row, ANSWER_KEYS, where), checks=dict(checks))


def _text(row: Any, keys: Sequence[str], where: str) -> str:
    """The text under the first of some keys that holds any; one message stands for its text.

    Raises: DataError where it is no text
    """
    value = next((row[key] for key in keys if row.get(key) not in (None, "")), "")
    text = plain_text(messages_in(value))
    if text is not None:
        return text
    turns = turns_of(messages_in(value), where)
    if len(turns) != 1:
        raise DataError(f"{where}: {len(turns)} messages where one is expected; give a text")
    return turns[0].text
