"""Where the nodes of one stage meet: a folder that all of them see."""

from __future__ import annotations

import random
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from harness.errors import LostError

JOIN_SECONDS = 300.0
"""How long nodes wait for each other: all prepare the same data and model before they train."""


@dataclass(kw_only=True)
class Meeting:
    """The nodes of one attempt at a stage, each of which runs the whole stage and trains along.

    State: `trainings` counts those that have begun; the n-th meets in `folder/n`, where node 0 says where it
    listens, and rank 0 leaves the result for all
    """

    folder: Path
    node: int
    num_nodes: int
    trainings: int = 0

    def next(self) -> tuple[str, Path]:
        """Where the stage's next training meets: node 0's `host:port`, and the shared folder.

        Raises: LostError if node 0 does not say so in time
        """
        folder = self.folder / str(self.trainings)
        self.trainings += 1
        file = folder / "endpoint"
        if self.node == 0:
            folder.mkdir(parents=True)
            temporary = folder / ".endpoint"
            temporary.write_text(f"{socket.gethostname()}:{_free_port()}", encoding="utf-8")
            temporary.rename(file)
        end = time.monotonic() + JOIN_SECONDS
        while not file.is_file():
            if time.monotonic() > end:
                raise LostError(f"node 0 has not come to {folder} within {JOIN_SECONDS:.0f} s")
            time.sleep(0.05)
        return file.read_text(encoding="utf-8"), folder


def _free_port() -> int:
    """A port that nothing listens on, below those that the kernel lends to connections (Linux: 32768 and up).

    The listener binds it a moment later: a lent one may be taken by any connection made meanwhile.
    """
    for port in random.SystemRandom().sample(range(20_000, 32_768), 64):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    raise LostError("64 ports between 20,000 and 32,767 are all in use; nodes cannot meet here")
