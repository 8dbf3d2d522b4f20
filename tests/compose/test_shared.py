"""Equal nodes are one object, and only equal ones; what we spare Hydra changes no composition."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from harness.compose import compose, lean, load
from harness.compose.shared import identity, once, shared
from harness.errors import HarnessError
from harness.registry.known import registry


def test_equal_nodes_are_one_object() -> None:
    first = shared({"method": "lion", "inner": {"rate": [0.1, 2]}})
    assert first == {"method": "lion", "inner": {"rate": [0.1, 2]}}
    assert shared({"method": "lion", "inner": {"rate": [0.1, 2]}}) is first
    assert shared({"rate": [0.1, 2]}) is first["inner"]


@pytest.mark.parametrize("other", [{"x": 1.0}, {"x": True}, {"x": "1"}, {"x": [1]}, {"x": 1, "y": None}])
def test_nodes_that_differ_in_type_alone_are_two(other: dict[str, object]) -> None:
    assert shared({"x": 1}) is not shared(other)
    assert identity([shared({"x": 1})]) != identity([shared(other)])
    assert identity([1]) != identity([True]) != identity([1.0])


def test_the_order_of_methods_counts() -> None:
    assert shared({"pii": {}, "language": {}}) is not shared({"language": {}, "pii": {}})


def test_what_follows_is_worked_out_once_for_a_shared_node_alone() -> None:
    made = itertools.count(1)
    node = shared({"only": "here"})
    assert [once(node, ("number",), lambda: next(made)) for _ in range(3)] == [1, 1, 1]
    own = {"only": "here"}
    assert [once(own, ("number",), lambda: next(made)) for _ in range(2)] == [2, 3]
    assert identity([node, own]) is None


def test_cells_that_differ_in_their_seed_alone_are_alike() -> None:
    first, second = compose(["seed=0"]), compose(["seed=1"])
    assert first.likeness() is not None
    assert first.likeness() == second.likeness() != compose(["optimizer=lion"]).likeness()
    assert first.id != second.id


def test_hydra_composes_the_same_with_and_without_what_it_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(0)
    drawn = [["experiment=demo", "scale=full"]]
    for _ in range(3):
        axes = draw.sample([name for name, axis in registry().axes.items() if not axis.many], 4)
        drawn.append([f"{axis}={draw.choice(list(registry().methods(axis)))}" for axis in axes])
    ours = [load(overrides) for overrides in drawn]
    for owner, name, theirs_of in lean.ORIGINALS:
        monkeypatch.setattr(owner, name, theirs_of)
    for overrides, (node, choices) in zip(drawn, ours, strict=True):
        theirs, their_choices = load(overrides)
        assert OmegaConf.to_container(node) == OmegaConf.to_container(theirs)
        assert choices == their_choices


def test_a_search_path_of_one_composition_is_not_that_of_the_next(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 7\n")
    node, _ = load(["experiment=mine", f"hydra.searchpath=[{tmp_path}]"])
    assert node.seed == 7
    with pytest.raises(HarnessError, match="mine"):
        load(["experiment=mine"])
