"""What one stage takes at once: nodes, processes, GPUs."""

from __future__ import annotations

from dataclasses import dataclass

from harness.method import Choice
from harness.plan.node import Node


@dataclass(frozen=True, order=True, kw_only=True)
class Need:
    """What one stage takes at once: its resource class."""

    nodes: int = 1
    processes: int = 1
    """On each node."""
    gpus: int = 0
    """On each node."""
    threads: int = 1
    """Processor threads on each node, of all its processes."""

    @classmethod
    def of(cls, node: Node) -> Need:
        """The nodes and processes that train together, and a GPU for each process where the stage runs on
        GPUs."""
        parallelism = node.choices.get("parallelism")
        if not isinstance(parallelism, Choice):
            return cls(gpus=1 if node.device == "cuda" else 0, threads=node.threads)
        nodes, processes = parallelism.config.num_nodes, parallelism.config.num_processes
        gpus = processes if node.device == "cuda" else 0
        return cls(nodes=nodes, processes=processes, gpus=gpus, threads=max(node.threads, processes))

    def fits(self, room: Need) -> bool:
        """Whether a worker placed for `room` can run it."""
        return (
            self.nodes <= room.nodes
            and self.processes <= room.processes
            and self.gpus <= room.gpus
            and self.threads <= room.threads
        )
