"""What cells of a plan share is worked out once, and changes no key, no config and no problem."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.compose import Cell, compose
from harness.compose import cell as cell_module
from harness.method import Problem
from harness.plan import assemble, placing
from harness.plan.graph import Graph
from harness.plan.make import make_plan
from harness.plan.problems import problems
from harness.store import Store


def test_sharing_changes_nothing_of_any_cell(monkeypatch: pytest.MonkeyPatch, own_store: Path) -> None:
    """Each cell against itself composed by Hydra alone, and put into a graph of its own without sharing."""
    sweep = ["position=rope,alibi", "context=none,yarn", "seed=0,1"]
    store = Store(own_store)
    together = make_plan([*sweep, "scale=smoke"], store=store)
    assert any(cell.problems for cell in together.cells)  # yarn scales what alibi does not have
    for module in (cell_module, assemble):
        monkeypatch.setattr(module, "shared", lambda node: node)
    for planned in together.cells:
        alone = compose(planned.cell.overrides)
        assert alone.likeness() is None
        assert alone.config == planned.cell.config
        graph = Graph(store)
        assert tuple(graph.add(alone)) == planned.keys
        assert tuple(problems(alone)) == planned.problems
        for key in planned.keys:
            assert graph.nodes[key].material == together.graph.nodes[key].material


def test_cells_that_differ_in_their_seed_alone_are_checked_once(
    monkeypatch: pytest.MonkeyPatch, own_store: Path
) -> None:
    checked: list[Cell] = []

    def counted(cell: Cell) -> list[Problem]:
        checked.append(cell)
        return problems(cell)

    monkeypatch.setattr(placing, "problems", counted)
    arguments = ["optimizer=adamw,lion", f"seed={','.join(map(str, range(12)))}", "scale=smoke"]
    made = make_plan(arguments, store=Store(own_store))
    assert len(made.cells) == 24
    assert [cell.choice("optimizer").method.name for cell in checked] == ["adamw", "lion"]  # type: ignore[union-attr]
