"""How published sets write a preference; each parser takes one entry."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from harness import DataError, Prompt, Role, Turn, as_turns, turns_of

SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant):")

Row = Mapping[str, Any]


class LeftOut(Exception):  # noqa: N818 - no error, and never seen outside
    """Why an entry of a right format gives no preference."""


class Pair(NamedTuple):
    """A prompt and two answers; one is empty where only the other was labelled."""

    prompt: Prompt
    chosen: str
    rejected: str


def parse(row: Row, where: str) -> Iterator[Pair]:
    """The preferences of an entry, whichever of the known formats it has.

    Raises: DataError naming the place and the known formats where it has none; LeftOut where an answer or a
        label is null
    """
    for keys, parser in PARSERS.items():
        if all(row.get(key) is not None for key in keys):
            yield from parser(row, where)
            return
    for keys in PARSERS:
        gaps = [key for key in keys if row.get(key) is None]
        if all(key in row for key in keys) and "prompt" not in gaps:
            raise LeftOut(f"nothing stands under '{gaps[0]}'")
    known = "; ".join(", ".join(keys) for keys in PARSERS)
    present = sorted(key for key, value in row.items() if value is not None)
    raise DataError(f"{where}: no preference: has {present}, needs one of: {known}")


def _labelled(row: Row, where: str) -> Iterator[Pair]:
    """KTO: one answer and whether it is good (TRL's unpaired preferences)."""
    if not isinstance(row["label"], bool | int):
        raise DataError(f"{where}: label must be true or false, not {row['label']!r}")
    asked, answer = _asked(row, where), row["completion"]
    if not isinstance(answer, str):
        *between, last = _turns(answer, where)
        asked, answer = _joined(asked, between), last.text
    yield Pair(asked, answer, "") if row["label"] else Pair(asked, "", answer)


def _scored(row: Row, where: str) -> Iterator[Pair]:
    """UltraFeedback's raw form: answers with scores; the best against the worst."""
    answers = row["completions"]
    if not isinstance(answers, list | tuple):
        raise DataError(f"{where}: completions must be a list of {{response, overall_score}}")
    scored = []
    for answer in answers:
        score = _number(_first(answer, "overall_score", "fine-grained_score", "score"))
        text = _first(answer, "response", "text", "content")
        if score is not None and text is not None:
            scored.append((score, text if isinstance(text, str) else _turns(text, where)[-1].text))
    if len(scored) > 1:
        best, worst = max(scored, key=lambda pair: pair[0]), min(scored, key=lambda pair: pair[0])
        if best[0] > worst[0]:
            yield Pair(str(row["instruction"]), best[1], worst[1])


def _paired(row: Row, where: str) -> Iterator[Pair]:
    """TRL's explicit prompts with two answers, as text or messages; messages may repeat the prompt."""
    chosen, rejected = row["chosen"], row["rejected"]
    asked = _asked(row, where)
    if isinstance(chosen, str) and isinstance(rejected, str):
        yield Pair(asked, chosen, rejected)
        return
    yield _divided(_turns(chosen, where), _turns(rejected, where), asked, where)


def _dialogues(row: Row, where: str) -> Iterator[Pair]:
    """Two whole dialogues that differ in the end: HH's texts, or messages (TRL's implicit prompts)."""
    chosen, rejected = row["chosen"], row["rejected"]
    if isinstance(chosen, str):
        chosen, rejected = _spoken(chosen, where), _spoken(str(rejected), where)
    else:
        chosen, rejected = _turns(chosen, where), _turns(rejected, where)
    yield _divided(chosen, rejected, None, where)


PARSERS: dict[tuple[str, ...], Callable[[Row, str], Iterator[Pair]]] = {
    ("prompt", "completion", "label"): _labelled,
    ("instruction", "completions"): _scored,
    ("prompt", "chosen", "rejected"): _paired,
    ("chosen", "rejected"): _dialogues,
}
"""Keys that an entry has -> its parser, the more telling first."""


def _divided(chosen: list[Turn], rejected: list[Turn], asked: Prompt | None, where: str) -> Pair:
    """The turns that both share, and the answers after them.

    Raises: LeftOut where they differ before their last answers, or end with none
    """
    if not chosen or not rejected or {chosen[-1].role, rejected[-1].role} != {Role.assistant}:
        raise LeftOut("a dialogue does not end with an answer")
    before, other = chosen[:-1], rejected[:-1]
    if before != other:
        raise LeftOut("the dialogues differ before their last answers")
    prompt = _joined(asked, before) if asked is not None else tuple(before)
    if not prompt:
        raise DataError(f"{where}: nobody asks before the answers; add a prompt")
    return Pair(prompt, chosen[-1].text, rejected[-1].text)


def _asked(row: Row, where: str) -> Prompt:
    """The prompt of an entry: a text, or messages."""
    prompt = row["prompt"]
    if isinstance(prompt, str):
        return tuple(_open(_spoken(prompt, where))) if prompt.startswith("\n\nHuman:") else prompt
    return tuple(_turns(prompt, where))


def _open(turns: list[Turn]) -> list[Turn]:
    """Turns without the name of the assistant that a prompt in HH's form ends with."""
    return turns[:-1] if turns[-1] == Turn(role=Role.assistant, text="") else turns


def _joined(asked: Prompt, before: list[Turn]) -> Prompt:
    """A prompt and the turns that follow it before the answer, which may repeat it or its last turns."""
    turns = as_turns(asked)
    if not before:
        return asked
    said, follows = _said(turns), _said(before)
    for first in range(len(said)):
        if follows[: len(said) - first] == said[first:]:
            return (*turns[:first], *before)
    if said[-1] in follows:  # a dialogue whose first turns the prompt leaves out
        return tuple(before)
    return (*turns, *before)


def _said(turns: Sequence[Turn]) -> list[tuple[Role, str]]:
    return [(turn.role, turn.text.strip()) for turn in turns]


def _turns(messages: Any, where: str) -> list[Turn]:
    """Turns of messages; one message stands for a list of one.

    Raises: DataError naming the place where it is none
    """
    if isinstance(messages, Mapping):
        messages = [messages]
    if not isinstance(messages, list | tuple) or not messages:
        raise DataError(f"{where}: expected text or a list of messages, found {type(messages).__name__}")
    return turns_of(messages, where)


def _spoken(text: str, where: str) -> list[Turn]:
    """Turns of an HH dialogue."""
    parts = SPEAKER.split(text)[1:]
    if not parts:
        raise DataError(f"{where}: a dialogue needs '\\n\\nHuman:' and '\\n\\nAssistant:', or give a prompt")
    roles = {"Human": Role.user, "Assistant": Role.assistant}
    return [
        Turn(role=roles[who], text=said.strip()) for who, said in zip(parts[::2], parts[1::2], strict=True)
    ]


def _number(value: Any) -> float | None:
    """A score; None where it is none, as "N/A"."""
    try:
        score = float(value)
    except (TypeError, ValueError):
        return None
    return None if math.isnan(score) else score


def _first(row: Any, *keys: str) -> Any:
    """The first of several keys that a mapping has."""
    if not isinstance(row, Mapping):
        return None
    return next((row[key] for key in keys if row.get(key) is not None), None)
