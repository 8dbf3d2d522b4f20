"""Peak memory against counts by hand."""

from __future__ import annotations

import torch

from harness.training.measure import PeakTracker

KIB = 1024


def zeros(num_bytes: int) -> torch.Tensor:
    return torch.zeros(num_bytes, dtype=torch.uint8)


def test_the_peak_is_the_most_that_was_held_at_once() -> None:
    held = zeros(3 * KIB)
    with PeakTracker([held]) as tracker:
        first = zeros(4 * KIB)
        del first
        second = zeros(2 * KIB)
    assert (tracker.held, tracker.peak) == (5 * KIB, 7 * KIB)
    del second
    assert tracker.held == 3 * KIB


def test_storages_that_are_resized_in_place_are_counted_at_the_size_they_have() -> None:
    # FSDP frees a gathered weight by resizing its storage to nothing, and makes it again in the same way.
    known, unknown = zeros(4 * KIB), zeros(8 * KIB)
    unknown.untyped_storage().resize_(0)
    with PeakTracker([known]) as tracker:
        known.untyped_storage().resize_(0)
        assert tracker.held == 0
        unknown.untyped_storage().resize_(8 * KIB)
        assert tracker.held == 8 * KIB
        unknown.untyped_storage().resize_(0)
        known.untyped_storage().resize_(4 * KIB)
    assert (tracker.held, tracker.peak) == (4 * KIB, 8 * KIB)
    del known
    assert tracker.held == 0
    before = torch.UntypedStorage.resize_
    with PeakTracker([]):
        pass
    assert torch.UntypedStorage.resize_ is before
