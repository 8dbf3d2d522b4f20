"""What every batch schedule must do."""

from __future__ import annotations

from harness.axes.batch_schedule import BatchSchedule

AXIS = "batch_schedule"


def sizes(schedule: BatchSchedule, final: int) -> list[int]:
    """The batch all through a run."""
    return [schedule.batch_size(final, i / 100) for i in range(101)]


def test_batches_are_whole_and_never_larger_than_the_stages(method: type[BatchSchedule]) -> None:
    for final in (1, 2, 7, 64, 1000):
        for size in sizes(method(), final):
            assert type(size) is int, f"batch_size returned {size!r}: return an int"
            assert 1 <= size <= final, f"batch_size returned {size}: between 1 and the stage's own {final}"


def test_it_ends_on_the_full_batch(method: type[BatchSchedule]) -> None:
    assert method().batch_size(64, 1.0) == 64, (
        "batch_size(64, 1.0) is not 64: a run ends on the stage's full batch"
    )


def test_it_never_shrinks(method: type[BatchSchedule]) -> None:
    found = sizes(method(), 64)
    assert found == sorted(found), f"the batch shrinks within a run: {found}"
