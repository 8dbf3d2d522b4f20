"""Entries of a user's files that cannot be read: what they do to a run, and how they are counted."""

from __future__ import annotations

from enum import Enum

from harness.data.reading import Damaged

UNREADABLE = "that cannot be read, the first: "
"""How the reason begins for which such entries are left out; what is wrong with the first follows."""


class OnError(Enum):
    """What an entry that cannot be read does to the run."""

    fail = "fail"
    skip = "skip"


def count_unreadable(on_error: OnError, left_out: dict[str, int]) -> Damaged | None:
    """Counts what it is told of among what was left out, by reason; None where that is an error."""
    if on_error is OnError.fail:
        return None

    def count(what: str) -> None:
        reason = next((reason for reason in left_out if reason.startswith(UNREADABLE)), UNREADABLE + what)
        left_out[reason] = left_out.get(reason, 0) + 1

    return count
