"""A config that another of its name would hide is refused, whoever would win."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.compose import load
from harness.errors import ConfigError


def folder(root: Path, *files: str) -> str:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text("# @package _global_\nseed: 3\n")
    return f"hydra.searchpath=[{root}]"


@pytest.mark.parametrize("chosen", ["experiment/demo", "scale/smoke", "model/mini"])
def test_a_file_beside_a_shipped_one_of_its_name_is_refused(tmp_path: Path, chosen: str) -> None:
    group, _, name = chosen.partition("/")
    own = folder(tmp_path, f"{chosen}.yaml")
    with pytest.raises(ConfigError, match=rf"{group}={name} is a file in .*{tmp_path}.*rename"):
        load([own, f"{group}={name}"])


@pytest.mark.parametrize("file", ["optimizer/adamw.yaml", "evaluator/perplexity.yaml"])
def test_a_file_with_the_name_of_a_method_is_refused(tmp_path: Path, file: str) -> None:
    with pytest.raises(ConfigError, match="is called like the method"):
        load([folder(tmp_path, file)])


def test_names_of_ones_own_are_read(tmp_path: Path) -> None:
    own = folder(tmp_path, "experiment/own.yaml", "optimizer/own.yaml", "unrelated/demo.yaml")
    node, choices = load([own, "experiment=own"])
    assert choices["experiment"] == "own"
    assert node.seed == 3
