"""The experiments about the model: every cell of them, or trial of a tuned one, can work at full scale."""

from pathlib import Path

import pytest

from harness.plan.make import make_plan
from harness.store import Store

NAMES = ("attention", "normalization", "activation", "position", "objective", "architecture")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_no_cell_is_refused(name: str, tmp_path: Path) -> None:
    plan = make_plan([f"experiment={name}", "scale=full", "seeds=[0]"], store=Store(tmp_path)).first
    assert {cell.refused for cell in plan.cells} == {""}
    specs = [cell.cell.spec() for cell in plan.cells]
    assert all(spec is not None and spec.dim == 768 for spec in specs), "the overlay of full scale applies"
