"""What stages take and what a worker has: slots, threads, GPUs, memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from harness.plan.need import Need
from harness.plan.node import Node
from harness.run import machine


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a sweep runs; nothing here changes a result, for threads follow from the stages' own options."""

    workers: int | None = None
    """Stages at a time; null = as many as their threads fill the cores, or one a GPU."""
    timeout: float | None = None
    """Seconds a stage may take; null = no limit."""
    memory: int | None = None
    """Bytes of address space a stage may take on the CPU; null = no limit."""
    total_memory: int | None = None
    """Bytes of main memory that stages beside each other may take by their bounds; null = what is free."""
    patience: float | None = 600.0
    """Seconds that a measurement of speed waits to be alone on its machine, and half of what others wait for
    it; then they go on, and the record says so; null = for ever."""
    retry: frozenset[str] = frozenset()
    """Final outcomes to try again all the same: failed, oom, timeout, ... or all."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """What a running stage was given."""

    threads: int
    """That it keeps busy."""
    gpus: tuple[int, ...] = ()
    memory: float = 0.0
    """Bytes of main memory it takes at most; 0 where nothing is known."""

    @property
    def device(self) -> str:
        """`cpu`, the one GPU, or `cuda` where processes share out those that the stage is made to see."""
        if not self.gpus:
            return "cpu"
        return f"cuda:{self.gpus[0]}" if len(self.gpus) == 1 else "cuda"


class Resources:
    """The machine's cores, memory and GPUs, dealt out to the stages of one worker."""

    def __init__(self, options: Options, nodes: Iterable[Node]) -> None:
        self._options = options
        self._cores = machine.cores()
        self._memory = machine.memory()
        free = machine.available_memory()
        self._budget = min(free, options.total_memory or free)
        on_gpus = any(node.device == "cuda" for node in nodes)
        self._gpus = machine.gpus() or (0,) if on_gpus else ()
        self.slots = options.workers or len(self._gpus) or self._cores

    def share(self, need: Need, *, running: Collection[Share], memory: float = 0.0) -> Share | None:
        """What a stage that takes so many bytes of main memory at most may have beside those that run; None
        while there is no room for it.

        A stage that nothing runs beside always gets what there is, so that no sweep waits for ever.
        """
        gpus = self._free_gpus(running)[: need.gpus]
        if running:
            busy = sum(share.threads for share in running)
            if len(running) >= self.slots:
                return None
            if not need.gpus and busy + need.threads > max(self._cores, self.slots):
                return None
            if need.processes > 1 and busy + need.processes > self._cores:
                return None
            if len(gpus) < need.gpus or machine.available_memory() <= self._memory // 10:
                return None
            # What runs may not have taken yet what it will: bounds add up to what was free at the start.
            if memory and memory + sum(share.memory for share in running) > self._budget:
                return None
        return Share(threads=need.threads, gpus=gpus, memory=memory)

    def memory(self, device: str) -> int:
        """Bytes that a stage may take on a device; none on a GPU where there is none."""
        if device.startswith("cuda"):
            if not machine.gpus():
                return 0
            import torch

            return int(torch.cuda.get_device_properties(device).total_memory)
        return self._options.memory or self._memory

    def _free_gpus(self, running: Collection[Share]) -> tuple[int, ...]:
        """GPUs with a free slot, those with the fewest stages first."""
        busy = Counter(gpu for share in running for gpu in share.gpus)
        each = -(-self.slots // len(self._gpus)) if self._gpus else 0
        free = [gpu for gpu in self._gpus if busy[gpu] < each]
        return tuple(sorted(free, key=lambda gpu: busy[gpu]))
