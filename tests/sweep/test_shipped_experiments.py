"""The experiments about the model: every cell of them can work, at every scale."""

from pathlib import Path

import pytest

from harness.store import Store
from harness.sweep.plan import make_plan

NAMES = ("attention", "normalization", "activation", "position", "objective", "architecture")


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["smoke", "mini", "full"])
@pytest.mark.parametrize("name", NAMES)
def test_no_cell_is_refused(name: str, scale: str, tmp_path: Path) -> None:
    plan = make_plan([f"experiment={name}", f"scale={scale}", "seeds=[0]"], store=Store(tmp_path))
    assert {cell.refused for cell in plan.cells} == {""}
    specs = [cell.cell.spec() for cell in plan.cells]
    assert all(
        spec is not None and spec.dim == {"smoke": 64, "mini": 64, "full": 768}[scale] for spec in specs
    )
