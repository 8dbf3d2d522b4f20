"""Batch schedule: the global batch over a run."""

from abc import abstractmethod

from harness.method import Method


class BatchSchedule(Method):
    """Number of sequences in the global batch."""

    axis = "batch_schedule"
    default = "constant"
    moves_facts = frozenset({"counts", "effective_batch"})

    @abstractmethod
    def batch_size(self, final: int, progress: float) -> int:
        """Sequences in the next global batch; `final` is the stage's batch size, progress in [0, 1]."""
        raise NotImplementedError
