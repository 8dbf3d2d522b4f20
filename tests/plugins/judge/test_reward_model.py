"""The reward-model judge: what the plan says of the model it is given."""

from pathlib import Path

import tiny_models as tiny
from harness_plugins.judge.reward_model import RewardModel

from harness.compose import compose


def test_a_model_without_a_reward_head_is_found_by_the_plan(tmp_path: Path) -> None:
    directory = tiny.pretrained(tmp_path / "hf")
    cell = compose(["reward=none"])
    config = RewardModel.Config(model=f"path:{directory}")
    (problem,) = RewardModel.check(config, cell, None)
    assert "has no reward head" in str(problem)
    (directory / "score_head.safetensors").write_bytes(b"")
    assert not list(RewardModel.check(config, cell, None))
    (problem,) = RewardModel.check(RewardModel.Config(model="cell:alignment=none"), cell, None)
    assert "has no reward head" in str(problem)
