"""Dither: noise within the asked steps, nothing elsewhere, and no grid afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch

from harness.errors import ConfigError
from harness.model.artifact import load_model, save_model
from harness.registry.known import registry
from harness.stages.dither import Dither, grid_noise


def dithered(root: Path, *overrides: str, seed: int = 0) -> tuple[Any, Any, dict[str, Any]]:
    """The model before and after the stage, and the stage's facts."""
    shelf = tiny.Shelf(root)
    tiny.byte_tokenizer(shelf.new("tokenizer", "tokenizer").path)
    model, out = shelf.new("model"), shelf.new("out")
    save_model(model.path, tiny.llama(dim=64), base={}, delta="weights", applied=[], tokenizer="tokenizer")
    work = tiny.work(shelf, "dither", out, ["dither.steps=0.5", *overrides], {"model": model})
    work.seed = seed
    facts = registry().stage("dither")().run(work)
    return load_model(model.path, shelf.load).model, load_model(out.path, shelf.load).model, facts  # type: ignore[arg-type]


def test_every_weight_moves_by_half_a_step_at_most_and_no_other_does(tmp_path: Path) -> None:
    before, after, facts = dithered(tmp_path)
    moved = 0
    for (name, old), (_, new) in zip(before.named_parameters(), after.named_parameters(), strict=True):
        if not name.endswith("_proj.weight"):
            assert torch.equal(old, new), name
            continue
        groups = old.detach().reshape(old.shape[0], -1, 32)
        step = (groups.amax(-1) - groups.amin(-1)) / 15
        change = (new - old).detach().abs().reshape(groups.shape).amax(-1) / step
        assert float(change.max()) <= 0.5 + 1e-4
        assert float(change.mean()) > 0.45, "the largest of 32 uniform draws is 32/33 of half a step"
        moved += 1
    assert facts["layers"] == moved == 14


def test_the_noise_is_uniform_with_the_variance_of_rounding() -> None:
    torch.manual_seed(0)
    weight = torch.randn(512, 512)
    config = Dither.Config(steps=0.5)
    noise = grid_noise(weight, config=config, generator=torch.Generator().manual_seed(1))
    groups = weight.reshape(512, -1, 32)
    step = ((groups.amax(-1, keepdim=True) - groups.amin(-1, keepdim=True)) / 15).expand_as(groups)
    scaled = noise.reshape(groups.shape) / step
    assert float(scaled.mean()) == pytest.approx(0, abs=3e-3)
    assert float(scaled.var()) == pytest.approx(1 / 12, rel=0.01)


def test_a_constant_group_stays_and_the_seed_decides(tmp_path: Path) -> None:
    flat = torch.ones(4, 64)
    assert not grid_noise(flat, config=Dither.Config(steps=0.5), generator=torch.Generator()).any()
    facts = [dithered(tmp_path / name, seed=seed)[2] for name, seed in (("a", 0), ("b", 0), ("c", 1))]
    weights = [fact["effects"]["dither"]["weights"] for fact in facts]
    assert weights[0] == weights[1] != weights[2]


def test_a_group_that_does_not_divide_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dither\.group_size=48 does not divide the 128 inputs"):
        dithered(tmp_path, "dither.group_size=48")


@pytest.mark.parametrize("wrong", [{"steps": -1.0}, {"levels": 1}, {"group_size": 0}])
def test_options_that_mean_nothing_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"dither\."):
        Dither.Config(**wrong)
