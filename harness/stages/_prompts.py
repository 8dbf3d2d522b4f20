"""Prompts of methods that learn from their own samples: conversations before their last answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harness.axes.instruction import Role, Turn
from harness.errors import DataError, IncompatibleError

if TYPE_CHECKING:
    from harness.axes.instruction import Conversation


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The turns before an answer, and what code can check of it."""

    turns: tuple[Turn, ...]
    checks: Mapping[str, object]

    def with_message(self, text: str) -> tuple[Turn, ...]:
        """The turns with another last message."""
        *before, last = self.turns
        return (*before, replace(last, text=text))


def asked_of(
    conversations: Sequence[Conversation],
    ids_of: Callable[[Asked], list[int]],
    *,
    length: int,
    needs_checks: bool,
) -> tuple[list[Asked], Counter[str]]:
    """What stands before the last answer of each conversation, and what cannot be asked, by reason."""
    found: list[Asked] = []
    left_out: Counter[str] = Counter()
    for conversation in conversations:
        last = max(i for i, turn in enumerate(conversation.turns) if turn.role is Role.assistant)
        item = Asked(turns=conversation.turns[:last], checks=conversation.checks)
        reason = ""
        if not item.turns or item.turns[-1].role is not Role.user:
            reason = "no user speaks before the answer"
        elif conversation.tools:
            reason = "it calls tools"
        elif needs_checks and not item.checks:
            reason = "it has no checks, which the reward reads"
        else:
            try:
                if len(ids_of(item)) > length:
                    reason = "the prompt fills the window"
            except DataError:
                reason = "the chat template refuses it"
        if reason:
            left_out[reason] += 1
        else:
            found.append(item)
    return found, left_out


def training_prompts(found: tuple[list[Asked], Counter[str]]) -> tuple[list[Asked], Counter[str]]:
    """The same, refused where nothing can be asked.

    Raises: IncompatibleError naming why
    """
    if not found[0]:
        raise IncompatibleError(
            f"no conversation gives align a prompt ({dict(found[1])}); choose another instruction source or "
            "reward, or raise align.sequence_length"
        )
    return found
