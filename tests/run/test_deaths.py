"""Who is to be blamed where the process that starts stages dies."""

from __future__ import annotations

from harness.run.deaths import Deaths


def test_a_stage_under_which_it_dies_is_set_apart_and_blamed_for_what_happens_to_it_alone() -> None:
    deaths = Deaths()
    blamed = []
    for company in (True, True, True, True, False, False, False):
        blamed.append(deaths.blame("stage", company=company))
        assert deaths.apart("stage") == (len(blamed) >= 3)
    assert blamed == [False] * 6 + [True]
    assert not deaths.apart("another")
