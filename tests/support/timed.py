"""A third party's corpus that takes its time and notes every run: for tests of real `harness sweep`s."""

import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

from harness import Corpus, Document, Method, hookimpl

LOG = "HARNESS_TIMED_LOG"
"""Names the file that gets a line for every run that starts, ends, or meets another of the same number."""


class Timed(Corpus):
    """Twenty documents of a number, one after the other."""

    name = "timed"

    @dataclass(frozen=True, kw_only=True)
    class Config(Corpus.Config):
        number: int = 0
        """What the documents say."""
        seconds: float = 0.0
        """How long reading takes."""

    config: Config

    def documents(self) -> Iterator[Document]:
        note("started", self.config.number)
        running = open(f"{os.environ[LOG]}.{self.config.number}", "w")  # noqa: SIM115
        try:
            fcntl.flock(running, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note("overlaps", self.config.number)
        for place in range(20):
            time.sleep(self.config.seconds / 20)
            name = f"{self.config.number}/{place}"
            yield Document(id=name, text=f"number {name}\n" * 20, domain="timed", split=self.split(name))
        note("finished", self.config.number)
        running.close()


def note(event: str, number: int) -> None:
    """One line, appended in one write."""
    file = os.open(os.environ[LOG], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, f"{event} {number} {os.getpid()}\n".encode())
    os.close(file)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Timed]
