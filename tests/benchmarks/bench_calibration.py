"""The decision rule's family-wise error over a grid of designs, and its power beside the old rule's."""

from __future__ import annotations

import pytest
from simulated_tables import NOISE, family_error, power

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("cells", [3, 6, 13, 25])
@pytest.mark.parametrize("seeds", [3, 4, 5, 7, 10])
def test_family_errors_stay_at_five_percent(seeds: int, cells: int) -> None:
    """2,000 tables of each kind: 5 % and three standard errors."""
    kinds: list[dict[str, object]] = [{"noise": noise} for noise in NOISE]
    kinds += [{"noisy": arm, "times": times} for arm in (0, 1) for times in (3.0, 5.0, 10.0)]
    kinds += [{"missing": cells // 2}]
    for kind in kinds:
        rate = family_error(2000, cells=cells, seeds=seeds, **kind)
        print(f"{cells} cells, {seeds} seeds, {kind}: {rate:.4f}")
        assert rate <= 0.05 + 3 * (0.05 * 0.95 / 2000) ** 0.5, kind


@pytest.mark.parametrize("seeds", [3, 4, 5, 10])
def test_power_beside_the_old_rule(seeds: int) -> None:
    for effect in (2, 3, 5, 10):
        now, before = power(1000, effect=effect, cells=13, seeds=seeds)
        print(f"{seeds} seeds, effect {effect} SD: {now:.3f}, before {before:.3f}")
        assert now >= before
