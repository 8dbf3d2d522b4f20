"""Batch schedule: the global batch over a run."""

from abc import abstractmethod

from harness.method import Method

MOMENTS = 100
"""Moments of a training at which its batch is looked at."""


class BatchSchedule(Method):
    """Number of sequences in the global batch."""

    axis = "batch_schedule"
    default = "constant"
    moves_facts = frozenset({"counts", "effective_batch"})

    @abstractmethod
    def batch_size(self, final: int, progress: float) -> int:
        """Sequences in the next global batch; `final` is the stage's batch size, progress in [0, 1]."""
        raise NotImplementedError

    def uneven(self, final: int, share: int) -> int | None:
        """The smallest batch of a training that is no multiple of `share`; None where all are."""
        sizes = {self.batch_size(final, moment / MOMENTS) for moment in range(MOMENTS + 1)}
        return min((size for size in sizes if size % share), default=None)

    def evened(self, final: int, share: int) -> str:
        """What to state so that all batches are multiples of `share`."""
        grows = final % share == 0 and hasattr(self.config, "multiple")
        return f"batch_schedule.multiple={share}" if grows else f"a multiple of {share}"
