"""Standard output of commands that answer in JSON: theirs alone, whatever plugins and libraries print."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator

STDOUT, STDERR = 1, 2
_answer: Callable[[str], None] = print


def answer(text: str) -> None:
    """Print what was asked for."""
    _answer(text)


@contextlib.contextmanager
def reserved(*, to_the_end: bool) -> Iterator[None]:
    """Within it, `answer` alone reaches standard output; what else is printed, by any means, is in stderr.

    `to_the_end` leaves it so until the process ends, exit handlers included.
    """
    global _answer
    stream, before = sys.stdout, _answer
    with contextlib.ExitStack() as undo:
        undo.callback(setattr, sys, "stdout", stream)
        undo.callback(setattr, sys.modules[__name__], "_answer", before)
        _answer = lambda text: print(text, file=stream)  # noqa: E731
        if _is_process_output(stream):
            stream.flush()
            kept = os.dup(STDOUT)
            os.dup2(STDERR, STDOUT)
            undo.callback(os.close, kept)
            undo.callback(os.dup2, kept, STDOUT)
            _answer = lambda text: _write(kept, f"{text}\n".encode())  # noqa: E731
        sys.stdout = sys.stderr
        yield
        if to_the_end:
            undo.pop_all()


def _is_process_output(stream: object) -> bool:
    """Whether a stream is the process's own, and not what a test or a notebook put in its place."""
    try:
        return isinstance(stream, io.TextIOBase) and stream.fileno() == STDOUT
    except (OSError, ValueError):
        return False


def _write(file: int, content: bytes) -> None:
    """All of it, past Python's buffers: what a closed pipe did not take is not tried again at the end."""
    while content:
        content = content[os.write(file, content) :]
