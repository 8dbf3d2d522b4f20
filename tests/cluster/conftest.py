"""Real sweeps in processes of their own: a third party's corpus that takes its time, and what came of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from third_party import ROOT, distribution

from harness.store import Store
from harness.store.records import records


def wait_for(condition: Callable[[], bool], *, seconds: float = 400.0, what: str = "it") -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.1)


@dataclass
class Sweep:
    """A sweep over numbers, `cells` of them, each a stage of `seconds`."""

    folder: Path
    site: Path
    cells: int = 4
    seconds: float = 1.0
    in_background: bool = False
    """Whether processes start as a script's `command &` does: with Ctrl-C ignored."""
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def root(self) -> Path:
        """The store."""
        return self.folder / "store"

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `harness sweep` as a user does; its output goes to a file."""
        numbers = ",".join(map(str, range(self.cells)))
        command = [sys.executable, "-m", "harness", "sweep", "stages=[corpus]", "scale=smoke", "corpus=timed"]
        command += [f"corpus.number={numbers}", f"corpus.seconds={self.seconds}", *arguments]
        paths = [str(self.site), str(ROOT), str(ROOT / "plugins"), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "HARNESS_STORE": str(self.root),
            "HARNESS_TIMED_LOG": str(self.folder / "timed.log"),
        }
        if self.in_background:
            command = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", *command]
        log = self.output(len(self.processes)).open("w")
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment,
            stdout=log,
            stderr=log,
            text=True,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def output(self, number: int = -1) -> Path:
        """What a process printed; the last one's by default."""
        return self.folder / f"output{number if number >= 0 else len(self.processes) + number}.txt"

    def said(self) -> str:
        """What all processes printed."""
        return "\n".join(self.output(i).read_text() for i in range(len(self.processes)))

    def runs(self, event: str) -> Counter[int]:
        """How often each number's stage started or finished."""
        file = self.folder / "timed.log"
        lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
        return Counter(int(number) for name, number, _ in lines if name == event)

    def check(self, *, lost: int = 0) -> None:
        """Every stage was made, none twice at a time, at most `lost` again; all is whole, nothing left over.

        A stage that was killed after its last line, before its artifact landed, rightly runs again.
        """
        store = Store(self.root)
        assert set(self.runs("finished")) == set(range(self.cells)), self.said()
        assert not self.runs("overlaps")
        assert sum(self.runs("started").values()) <= self.cells + lost
        keys = store.all_keys()
        assert len(keys) == self.cells
        for key in keys:
            assert store.verify(key).facts["num_documents"]
        found = [record for _, record in records(self.root)]
        assert sorted(record["levels"]["corpus.number"] for record in found) == sorted(
            map(str, range(self.cells))
        )
        assert {record["outcome"]["status"] for record in found} == {"ok"}
        assert store.claims.names() == []
        assert not list((self.root / "tmp").iterdir())
        assert not list((self.root / "corrupt").glob("*"))


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the third party's distribution."""
    folder = tmp_path_factory.mktemp("site")
    content = (ROOT / "tests" / "support" / "timed.py").read_text()
    distribution(folder, "harness-timed", "timed", content)
    return folder


@pytest.fixture
def sweep(tmp_path: Path, site: Path) -> Iterator[Sweep]:
    """A sweep to start; whatever still runs at the end of the test is killed."""
    made = Sweep(tmp_path, site)
    yield made
    for process in made.processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
