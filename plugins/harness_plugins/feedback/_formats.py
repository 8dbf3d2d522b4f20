"""How published sets write a preference; each parser takes one entry."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from harness import (
    DataError,
    NoTextError,
    Prompt,
    Role,
    Turn,
    as_turns,
    messages_in,
    plain_text,
    spoken_turns,
    turns_of,
)

DIALOGUE = re.compile(r"\s*Human:(?s:.*)\n\s*\nAssistant:")
"""How a text in HH's form begins."""
ASKED = ("prompt", "question", "instruction", "input")
"""Where a prompt stands, in the formats in use; an `input` beside an `instruction` belongs to it."""
OTHER_NAMES = {
    "chosen": ("preferred_output", "chosen_response"),
    "rejected": ("non_preferred_output", "rejected_response"),
    "label": ("kto_tag",),
}
"""What OpenAI's preference files, Argilla's and LLaMA-Factory's call what TRL calls otherwise."""
SCORES = ("overall_score", "fine-grained_score", "score")
LABELS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}

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
        label is null, or no text
    """
    try:
        yield from _parsed(row, where)
    except NoTextError as error:
        raise LeftOut(f"it holds a part of type '{error.kind}'") from error


def _parsed(row: Row, where: str) -> Iterator[Pair]:
    row = _with_prompt(_with_known_names(row))
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
    good = LABELS.get(str(row["label"]).lower())
    if good is None:
        raise DataError(f"{where}: label must be true or false, not {row['label']!r}")
    asked, answer = _asked(row, where), messages_in(row["completion"])
    text = plain_text(answer)
    if text is None:
        *between, last = _turns(answer, where)
        if last.role is not Role.assistant:
            raise LeftOut("a dialogue does not end with an answer")
        asked, text = _joined(asked, between), last.text
    yield Pair(asked, text, "") if good else Pair(asked, "", text)


def _scored(row: Row, where: str) -> Iterator[Pair]:
    """UltraFeedback's raw form: answers with scores; the best against the worst."""
    answers = row["completions"]
    if not isinstance(answers, list | tuple):
        raise DataError(f"{where}: completions must be a list of {{response, overall_score}}")
    scored = []
    scale = next((key for key in SCORES if any(_number(_first(a, key)) is not None for a in answers)), "")
    for answer in answers:
        score = _number(_first(answer, scale))
        text = _first(answer, "response", "text", "content")
        if score is not None and text is not None:
            scored.append((score, text if isinstance(text, str) else _turns(text, where)[-1].text))
    if len(scored) > 1:
        best, worst = max(scored, key=lambda pair: pair[0]), min(scored, key=lambda pair: pair[0])
        if best[0] > worst[0]:
            yield Pair(_asked(row, where), best[1], worst[1])


def _paired(row: Row, where: str) -> Iterator[Pair]:
    """TRL's explicit prompts with two answers, as text or messages; messages may repeat the prompt."""
    chosen, rejected = messages_in(row["chosen"]), messages_in(row["rejected"])
    asked = _asked(row, where)
    texts = plain_text(chosen), plain_text(rejected)
    if texts[0] is None or texts[1] is None:
        yield _divided(_turns(chosen, where), _turns(rejected, where), asked, where)
    elif not isinstance(asked, str) and all(DIALOGUE.match(text) for text in texts if text):
        yield _divided(spoken_turns(texts[0], where), spoken_turns(texts[1], where), asked, where)
    else:
        yield Pair(asked, texts[0], texts[1])


def _dialogues(row: Row, where: str) -> Iterator[Pair]:
    """Two whole dialogues that differ in the end: HH's texts, or messages (TRL's implicit prompts)."""
    chosen, rejected = messages_in(row["chosen"]), messages_in(row["rejected"])
    if isinstance(chosen, str):
        chosen, rejected = spoken_turns(chosen, where), spoken_turns(str(rejected), where)
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


def _with_known_names(row: Row) -> Row:
    """An entry by TRL's names: OpenAI's `input` holds the messages of the prompt, and a labelled dialogue is
    a prompt and the answer that it ends with.

    Raises: LeftOut where it is shorter
    """
    named = dict(row)
    for name, others in OTHER_NAMES.items():
        if row.get(name) is None and (given := _first(row, *others)) is not None:
            named[name] = given
    asked = row.get("input")
    if isinstance(asked, Mapping) and row.get("prompt") is None:
        named["prompt"] = asked.get("messages")
    said = messages_in(_first(row, "messages", "conversations"))
    if "label" in named and not {"prompt", "completion"} & row.keys() and isinstance(said, list | tuple):
        if len(said) < 2:
            raise LeftOut("a dialogue does not end with an answer")
        named |= {"prompt": list(said[:-1]), "completion": list(said[-1:])}
    return named


def _with_prompt(row: Row) -> Row:
    """An entry whose prompt stands under `prompt`, where it has one beside its answers under another name."""
    if row.get("prompt") is not None or "completions" in row or not {"chosen", "rejected"} <= row.keys():
        return row
    answer = messages_in(row["chosen"])
    whole = len(answer) > 1 if isinstance(answer, list | tuple) else DIALOGUE.match(str(answer))
    if whole:
        return row
    before = _first(row, "conversations", "conversation")
    texts = [str(row[key]) for key in ASKED[1:] if row.get(key)]
    asked = before if before is not None else "\n\n".join(texts)
    return {**row, "prompt": asked} if asked else row


def _asked(row: Row, where: str) -> Prompt:
    """The prompt of an entry: a text, or messages; behind what a `system` beside it says."""
    given = messages_in(_first(row, "prompt", "instruction"))
    text = plain_text(given)
    if text is None:
        asked: Prompt = tuple(_turns(given, where))
    else:
        asked = tuple(_open(spoken_turns(text, where))) if DIALOGUE.match(text) else text
    system = row.get("system")
    turns = as_turns(asked)
    if not isinstance(system, str) or not system.strip() or turns[0].role is Role.system:
        return asked
    return (Turn(role=Role.system, text=system), *turns)


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
