"""Where a chat template writes the answers, found without trusting that it keeps prefixes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

from harness.axes.instruction import Role, Turn
from harness.errors import DataError

Span = tuple[int, int]
"""First character and the one after the last."""

Render = Callable[[Sequence[Turn], bool], str]
"""(turns, whether the assistant is to speak next) -> text."""

STAND_IN = "Stand-in-for-the-answer-here"


def answer_spans(turns: Sequence[Turn], text: str, render: Render) -> list[Span]:
    """The span of each answer in `text`, the rendered `turns`, with the end that is written after it.

    An answer is what the text of the turns up to it has beyond the text that asks for it, where both are
    prefixes of the whole. Elsewhere it is found by rendering a stand-in in its place.
    Raises: DataError where the template changes answers, so that they are not found
    """
    found: list[Span] = []
    for index, turn in enumerate(turns):
        if turn.role is not Role.assistant:
            continue
        opened, closed = render(turns[:index], True), render(turns[: index + 1], False)
        kept = text.startswith(closed)
        if kept and closed.startswith(opened) and _holds(turns, index, opened, closed, render):
            found.append((len(opened), len(closed)))
            continue
        calls = turn.tool_calls and not turn.text.strip()
        silent = _calls(turns, index, text, opened, closed, render) if calls else None
        if silent is not None:
            found.append(silent)
            continue
        start, end = _located(turns, index, text, render)
        after = render(_with_stand_in(turns[: index + 1], index), False).rpartition(STAND_IN)[2]
        # What stands between request and answer belongs to the answer unless later turns put it there.
        opens = text.startswith(opened) and len(opened) <= start and closed.startswith(text[:start])
        found.append((len(opened) if opens else start, end + _common(after, text[end:])))
    return found


def _holds(turns: Sequence[Turn], index: int, opened: str, closed: str, render: Render) -> bool:
    """Whether an answer stands whole after its request, which may open its reasoning for it."""
    written, answer = bare(closed[len(opened) :]), bare(turns[index].text)
    if not written or answer in written:
        return bool(written)
    before = render(turns[:index], False)
    return opened.startswith(before) and answer in bare(closed[len(before) :])


def _calls(
    turns: Sequence[Turn], index: int, text: str, opened: str, closed: str, render: Render
) -> Span | None:
    """The span of a turn of calls alone, where its request opens otherwise or later turns change it."""
    if text.startswith(closed):
        start = _common(opened, closed)
        return (start, len(closed)) if len(render(turns[:index], False)) <= start else None
    if not (text.startswith(opened) and closed.startswith(opened)):
        return None
    written = closed[
        len(opened) :
    ]  # as the last turn; an earlier one lacks what opens it, e.g. its reasoning
    first = written.find(str(turns[index].tool_calls[0].get("function", {}).get("name", "")))
    for place in range(max(first, 0)):
        if text.startswith(written[place:], len(opened)):
            return len(opened), len(opened) + len(written) - place
    return None


def _located(turns: Sequence[Turn], index: int, text: str, render: Render) -> Span:
    """The bare answer of one turn in a text, by what surrounds a stand-in for it."""
    turn = turns[index]
    before, stand_in, after = render(_with_stand_in(turns, index), False).partition(STAND_IN)
    start, end = len(before), len(text) - len(after)
    forms = (turn.text, turn.text.strip(), turn.text.lstrip(), turn.text.rstrip())
    whole = stand_in and start < end and text.startswith(before) and text.endswith(after)
    if not whole or text[start:end] not in forms:
        raise _refusal(turn)
    return start, end


def _with_stand_in(turns: Sequence[Turn], index: int) -> list[Turn]:
    return [replace(turn, text=STAND_IN) if place == index else turn for place, turn in enumerate(turns)]


def bare(text: str) -> str:
    """A text without white space, which templates set anew around reasoning."""
    return "".join(text.split())


def _common(first: str, second: str) -> int:
    """Length of the common beginning; of a token like <|end|> all or nothing."""
    pairs = zip(first, second, strict=False)
    common = "".join(a for a, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    begun = common.rfind("<")
    return begun if begun > common.rfind(">") else len(common)


def _refusal(turn: Turn) -> DataError:
    return DataError(
        f"the chat template changes the answer {turn.text[:60]!r} when it writes the whole conversation, so "
        "that what is learned would not be what stands there; use a template that marks answers with "
        "{% generation %}, or single-turn conversations"
    )
