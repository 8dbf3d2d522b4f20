"""Slow tests, which CI alone runs: some always, the others in turns.

Of the others there is time for some: files come in an order that another turn changes, until the time is
over. Those that ran are told from the rest, and counted. CI's turn is the day, so that over a few days each
file comes first.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Iterable
from typing import Any

import pytest

ALWAYS = pytest.mark.slow(always=True)
"""A slow test that every run of CI has time for."""
LATE = "its turn comes in another run"


def fast(names: Iterable[str], chosen: Collection[str]) -> list[Any]:
    """Parameters of a test: the chosen ones are fast, all others `ALWAYS`."""
    return [name if name in chosen else pytest.param(name, marks=ALWAYS) for name in names]


def add_options(parser: pytest.Parser) -> None:
    """`--turn` and `--within`."""
    group = parser.getgroup("turns", "tests of which there is time for some")
    group.addoption("--turn", default="", help="any text; files of tests come in an order of its own")
    group.addoption("--within", type=float, metavar="SECONDS", help="no test starts after that")
    group.addoption("--until", type=float, help="the same as a time of the clock; set for workers")


def register(config: pytest.Config) -> None:
    """Take turns where an option says so."""
    if config.option.within is not None and config.option.until is None:
        config.option.until = time.time() + config.option.within  # workers are given it
    if config.option.turn or config.option.until is not None:
        config.pluginmanager.register(Turns(config))


class Turns:
    """Orders files, ends in time, and says how many tests ran."""

    def __init__(self, config: pytest.Config) -> None:
        self.turn: str = config.option.turn
        self.within: float | None = config.option.within
        self.until: float | None = config.option.until
        self.seen: set[str] = set()
        self.late: set[str] = set()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if self.turn:
            items.sort(key=lambda item: place(item.nodeid, self.turn))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        if self.until is not None and time.time() > self.until:
            pytest.skip(LATE)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seen.add(report.nodeid)
        if report.skipped and LATE in str(report.longrepr):
            self.late.add(report.nodeid)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.seen and self.within is not None:
            ran = len(self.seen) - len(self.late)
            terminalreporter.write_line(
                f"{ran} of {len(self.seen)} tests had their turn in {self.within:g} s"
            )


def place(nodeid: str, turn: str) -> str:
    """Where a test's file stands in the order of a turn; tests of one file keep theirs."""
    return hashlib.sha256(f"{turn} {nodeid.partition('::')[0]}".encode()).hexdigest()
