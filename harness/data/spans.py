"""Where a chat template writes the answers, found without trusting that it keeps prefixes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from harness.axes.instruction import Role, Turn
from harness.errors import DataError

Span = tuple[int, int]
"""First character and the one after the last."""

Render = Callable[[Sequence[Turn], bool], str]
"""(turns, whether the assistant is to speak next) -> text."""


def answer_spans(turns: Sequence[Turn], text: str, render: Render) -> list[Span]:
    """The span of each answer in `text`, the rendered `turns`, with the end that is written after it.

    An answer is what the text of the turns up to it has beyond the text that asks for it, where both are
    prefixes of the whole. Elsewhere it is found by rendering stand-ins in its place.
    Raises: DataError where the template changes answers, so that they are not found
    """
    found: list[Span] = []
    located: list[Span] | None = None
    answers = [index for index, turn in enumerate(turns) if turn.role is Role.assistant]
    for place, index in enumerate(answers):
        opened, closed = render(turns[:index], True), render(turns[: index + 1], False)
        keeps = closed.startswith(opened) and text.startswith(closed)
        if keeps and turns[index].text.strip() in closed[len(opened) :] and len(closed) > len(opened):
            found.append((len(opened), len(closed)))
            continue
        located = located or _located(turns, answers, text, render)
        start, end = located[place]
        after = _after(turns[: index + 1], render)
        opens = text.startswith(opened) and len(opened) <= start
        found.append((len(opened) if opens else start, end + _common(after, text[end:])))
    return found


def _located(turns: Sequence[Turn], answers: Sequence[int], text: str, render: Render) -> list[Span]:
    """The bare answers in a text, by what surrounds stand-ins for them."""
    rest = render(_with_stand_ins(turns, answers), False)
    between: list[str] = []
    for index in answers:
        before, stand_in, rest = rest.partition(_stand_in(index))
        if not stand_in:
            raise _refusal(turns[index])
        between.append(before)
    between.append(rest)
    spans: list[Span] = []
    at = len(between[0]) if text.startswith(between[0]) else -1
    for index, following in zip(answers, between[1:], strict=True):
        written = turns[index].text
        forms = (written, written.strip(), written.lstrip(), written.rstrip())
        form = next((form for form in forms if form and text.startswith(form + following, at)), None)
        if form is None or at < 0:
            raise _refusal(turns[index])
        spans.append((at, at + len(form)))
        at += len(form + following)
    if at != len(text):
        raise _refusal(turns[answers[-1]])
    return spans


def _after(turns: Sequence[Turn], render: Render) -> str:
    """What a template writes after the last of some turns, an answer."""
    last = len(turns) - 1
    return render(_with_stand_ins(turns, [last]), False).rpartition(_stand_in(last))[2]


def _with_stand_ins(turns: Sequence[Turn], answers: Sequence[int]) -> list[Turn]:
    return [
        Turn(role=turn.role, text=_stand_in(index), tool_calls=turn.tool_calls) if index in answers else turn
        for index, turn in enumerate(turns)
    ]


def _stand_in(index: int) -> str:
    return f"Stand-in-for-answer-{index}-here"


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
