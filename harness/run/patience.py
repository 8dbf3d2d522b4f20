"""How long what is not ours may keep a run waiting: an interruption after some seconds."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator


class NoAnswerError(Exception):
    """An observer took longer than it may."""


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Interrupts what takes longer; only the main thread can be interrupted.

    Raises: NoAnswerError
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def expired(*_: object) -> None:
        raise NoAnswerError(f"no answer within {seconds:g} s")

    previous = signal.signal(signal.SIGALRM, expired)
    # Again after a while, where a client takes the first one for a fault that it may try again.
    signal.setitimer(signal.ITIMER_REAL, seconds, max(seconds / 10, 0.05))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
