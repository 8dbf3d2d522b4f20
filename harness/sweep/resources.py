"""What a worker may use at once: slots, threads, devices, memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.sweep import machine
from harness.sweep.graph import Node


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a sweep runs; nothing here changes a result."""

    workers: int = 0
    """Stages at a time; 0 = one for every `threads` cores, or one a GPU."""
    threads: int = 0
    """Threads of a stage; 0 = cores / workers, and all cores for a stage that everything waits for."""
    timeout: float = 0.0
    """Seconds a stage may take; 0 = no limit."""
    memory: int = 0
    """Bytes of address space a stage may take on the CPU; 0 = no limit."""
    retry: frozenset[str] = frozenset()
    """Final outcomes to try again all the same: failed, oom, timeout, ... or all."""


class Resources:
    """The machine's cores, memory and GPUs, dealt out to the stages of one worker."""

    def __init__(self, options: Options, nodes: Iterable[Node]) -> None:
        self._options = options
        self._cores = machine.cores()
        self._memory = machine.memory()
        self._gpus = machine.gpus() if any(node.device == "cuda" for node in nodes) else ()
        one_each = max(1, self._cores // (options.threads or 1))
        self.slots = options.workers or len(self._gpus) or one_each

    def has_room(self, *, threads: Sequence[int]) -> bool:
        """Whether another stage may start beside those that run with so many threads each."""
        if not threads:
            return True
        if len(threads) >= self.slots or sum(threads) >= max(self._cores, self.slots):
            return False
        return machine.available_memory() > self._memory // 10

    def threads(self, *, bottleneck: bool) -> int:
        """Threads of a stage; one that everything waits for has all cores."""
        share = self._cores if bottleneck else self._cores // self.slots
        return self._options.threads or max(1, share)

    def device(self, node: Node, *, used: Iterable[str]) -> str:
        """The device of a stage: `cpu`, or the GPU with the fewest stages on it."""
        if node.device != "cuda":
            return node.device
        busy = Counter(used)
        return min((f"cuda:{index}" for index in self._gpus or (0,)), key=lambda name: busy[name])

    def memory(self, device: str) -> int:
        """Bytes that a stage may take on a device."""
        if device.startswith("cuda"):
            import torch

            return int(torch.cuda.get_device_properties(device).total_memory)
        return self._options.memory or self._memory


def bottlenecks(opened: Sequence[str], nodes: Mapping[str, Node]) -> set[str]:
    """Stages to run (inputs first) that have no sibling at their depth: beside them nothing is ready."""
    depth: dict[str, int] = {}
    for key in opened:
        inputs = (k for k in nodes[key].inputs.values() if k in depth)
        depth[key] = 1 + max((depth[k] for k in inputs), default=0)
    width = Counter(depth.values())
    return {key for key in opened if width[depth[key]] == 1}
