"""Instruct, align and quantize on a Hugging Face Llama, in every order that exists."""

from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch

from harness.errors import IncompatibleError
from harness.model.artifact import load_model
from harness.stages import stage_class

FAST = [
    "instruct.budget={unit: steps, amount: 3}",
    "align.budget={unit: steps, amount: 3}",
    "instruct.batch_size=4",
    "align.batch_size=4",
    "instruction=task",
    "instruction.num_items=60",
    "instruct.log_every=1",
    "align.log_every=1",
    "quantize.calibration_sequences=4",
    "quantize.calibration_length=16",
]


class Chain:
    """Runs stages one after another on a shelf."""

    def __init__(self, root: Path) -> None:
        self.shelf = tiny.Shelf(root / "shelf")
        self.directory = tiny.pretrained(root / "hf")
        self.latest: tiny.FakeArtifact | None = None

    def run(self, stage: str, *overrides: str, seed: int = 0) -> dict[str, Any]:
        out = self.shelf.new(f"{len(self.shelf.artifacts)}-{stage}")
        inputs = {} if self.latest is None else {"model": self.latest}
        everything = ["model=pretrained", f"model.path={self.directory}", *FAST, *overrides]
        work = tiny.work(self.shelf, stage, out, everything, inputs)
        work.seed = seed
        facts = stage_class(stage)().run(work)
        self.latest = out
        return facts

    def logits(self) -> torch.Tensor:
        assert self.latest is not None
        model = load_model(self.latest, self.shelf.load).model
        with torch.no_grad():
            return model(input_ids=torch.arange(20)[None] + 7).logits  # type: ignore[no-any-return]


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path)


@pytest.mark.parametrize("peft", ["full", "lora"])
def test_tune_align_then_quantize(chain: Chain, peft: str) -> None:
    tuned = chain.run("instruct", f"peft={peft}")
    assert tuned["effects"][f"peft={peft}"]["trainable_parameters"] > 0
    assert tuned["steps"] == 3
    before = chain.logits()
    aligned = chain.run("align", f"peft={peft}", "alignment=dpo", "align.learning_rate=1e-2")
    assert aligned["preferences"] > 0
    assert not torch.allclose(before, chain.logits(), atol=1e-4)
    quantized = chain.run("quantize", "quantizer=rtn", "quantizer.group_size=16", "quantizer.bits=8")
    assert quantized["bits_per_weight"] == pytest.approx(8.45)
    assert quantized["adapter"] == "none or merged"


def test_quantize_then_tune_is_qlora_and_keeps_its_codes(chain: Chain) -> None:
    chain.run("quantize", "quantizer=rtn", "quantizer.group_size=16")
    base = chain.logits()
    facts = chain.run("instruct", "peft=lora")
    assert facts["effects"]["peft=lora"]["adapter_is_fresh"]
    assert not torch.equal(base, chain.logits())
    again = chain.run("align", "peft=lora", "alignment=dpo")
    assert not again["effects"]["peft=lora"]["adapter_is_fresh"]
    assert chain.latest is not None
    assert tiny.manifest(chain.latest)["base"] == {"key": "0-quantize"}


def test_full_tuning_of_packed_weights_is_refused(chain: Chain) -> None:
    chain.run("quantize", "quantizer=rtn", "quantizer.group_size=16")
    with pytest.raises(IncompatibleError, match="packed weights"):
        chain.run("instruct", "peft=full")


def test_a_stage_gives_the_same_artifact_twice(tmp_path: Path) -> None:
    logits = []
    for name in ("one", "two"):
        chain = Chain(tmp_path / name)
        chain.run("instruct", "peft=lora")
        chain.run("align", "peft=lora", "alignment=dpo")
        logits.append(chain.logits())
    assert torch.equal(*logits)


@pytest.mark.parametrize("alignment", ["ppo", "grpo", "rloo", "raft", "best_of_n", "quark"])
def test_methods_that_learn_from_their_own_samples_run(chain: Chain, alignment: str) -> None:
    facts = chain.run(
        "align", f"alignment={alignment}", "reward=rules", "peft=lora", "align.max_new_tokens=6"
    )
    assert facts["rollouts"] >= 1
    assert facts["reward_method"] == "rules"


def test_a_trained_reward_guides_alignment(chain: Chain) -> None:
    out = chain.shelf.new("reward", "reward")
    everything = ["model=pretrained", f"model.path={chain.directory}", *FAST, "reward=pairwise"]
    everything += ["reward_stage.budget={unit: steps, amount: 3}", "reward_stage.batch_size=4"]
    work = tiny.work(chain.shelf, "reward", out, everything, {})
    facts = stage_class("reward")().run(work)
    assert facts["preferences"] > 0
    inputs = {"reward": out}
    aligned = chain.shelf.new("aligned")
    overrides = [*everything, "alignment=grpo", "align.max_new_tokens=6"]
    facts = stage_class("align")().run(tiny.work(chain.shelf, "align", aligned, overrides, inputs))
    assert facts["reward_method"] == "pairwise"
