"""Equal nodes are one object, and only equal ones; what we spare Hydra changes no composition."""

from __future__ import annotations

import copy
import itertools
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import GrammarParseError

from harness.compose import compose, lean, load
from harness.compose.schema import root_keys, root_node
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


def whole(node: Any, parent: Any = None) -> Any:
    """All that a node is: its value, what it says of itself, and whether it knows where it stands."""
    own = node._metadata
    said = (type(node), own.ref_type, own.object_type, own.optional, own.key, own.flags)
    here = (*said, node._get_parent() is parent, node._get_flag("struct"), node._get_flag("readonly"))
    content = node.__dict__.get("_content")
    if isinstance(node, DictConfig) and isinstance(content, dict):
        return here, {key: whole(value, node) for key, value in content.items()}
    if isinstance(node, ListConfig) and isinstance(content, list):
        return here, [whole(value, node) for value in content]
    return here, repr(node._value())


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
        assert whole(node) == whole(theirs)
        assert choices == their_choices


def test_what_a_copy_or_a_file_gives_is_its_own(tmp_path: Path) -> None:
    lean.install()
    node = OmegaConf.create({"a": [1, {"b": "${a.0}"}], "c": None, "d": "???"})
    copied = copy.deepcopy(node)
    copied.a[1].b = 2
    assert (node.a[1].b, copied.a[1]._get_parent() is copied.a) == (1, True)
    file = tmp_path / "one.yaml"
    file.write_text("a: 1\n")
    for value in (1, 2):  # a file that is written again is read again
        with file.open() as opened:
            read = OmegaConf.load(opened)
        assert read.a == value
        read.a = 7
        file.write_text("a: 2\n")
    with file.open() as opened:
        assert OmegaConf.load(opened).a == 2
    file.write_text("a: [1\n")
    for _ in range(2):
        with file.open() as opened, pytest.raises(yaml.YAMLError, match=r"one\.yaml"):
            OmegaConf.load(opened)


def test_an_interpolation_is_parsed_once_and_resolved_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    lean.install()
    node = OmegaConf.create({"a": "x${b}-${oc.env:OWN}", "b": 1})
    for value in ("one", "two"):
        monkeypatch.setenv("OWN", value)
        node.b = value
        assert node.a == f"x{value}-{value}"
    for _ in range(2):
        with pytest.raises(GrammarParseError):
            OmegaConf.create({"a": "${b"})


def test_the_keys_of_the_root_are_those_of_its_node() -> None:
    assert root_keys() == set(root_node())


def test_a_search_path_of_one_composition_is_not_that_of_the_next(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 7\n")
    node, _ = load(["experiment=mine", f"hydra.searchpath=[{tmp_path}]"])
    assert node.seed == 7
    with pytest.raises(HarnessError, match="mine"):
        load(["experiment=mine"])
