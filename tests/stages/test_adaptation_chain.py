"""Instruct, align and quantize on a Hugging Face Llama, in every order that exists."""

from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch

from harness.errors import IncompatibleError
from harness.model.artifact import load_model
from harness.registry.known import registry

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
        facts = registry().stage(stage)().run(work)
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
    assert tuned["effects"][f"peft={peft}"]["trainable_parameters"] == tuned["trainable_parameters"] > 0
    # AdamW keeps two fp32 moments of each trained weight, and a count of steps for each tensor.
    assert 0 <= tuned["optimizer_memory"] - 8 * tuned["trainable_parameters"] <= 4 * 200
    assert 0 <= tuned["checkpoint_bytes"] - 4 * tuned["trainable_parameters"] <= 20_000
    assert tuned["tokens_per_second"] > 0
    assert tuned["steps"] == 3
    before = chain.logits()
    aligned = chain.run("align", f"peft={peft}", "alignment=dpo", "align.learning_rate=1e-2")
    assert aligned["preferences"] > 0
    assert not torch.allclose(before, chain.logits(), atol=1e-4)
    quantized = chain.run("quantize", "quantizer=rtn", "quantizer.group_size=16", "quantizer.bits=8")
    # 16 bits of scale cost 0.45; a zero of 8 bits half as much, and each layer's exponent a byte.
    assert quantized["bits_per_weight"] == pytest.approx(8 + 0.45 * 24 / 16, abs=0.01)
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


def test_the_base_can_be_packed_beneath_an_adapter_that_could_be_merged(chain: Chain) -> None:
    chain.run("instruct", "peft=lora", "instruct.learning_rate=1e-2")
    tuned, start = chain.logits(), chain.latest
    with torch.no_grad():
        moved = (tiny.llama()(input_ids=torch.arange(20)[None] + 7).logits - tuned).abs().mean()
    packing = ["quantizer=rtn", "quantizer.group_size=16", "quantizer.bits=8"]
    assert chain.run("quantize", *packing, "quantize.merge=false")["adapter"] == "kept in 16 bits"
    kept = chain.logits()
    assert chain.latest is not None
    assert (chain.latest.path / "adapter" / "adapter_model.safetensors").exists()
    assert tiny.manifest(chain.latest)["adapter"]["method"] == "lora"
    chain.latest = start
    assert chain.run("quantize", *packing)["adapter"] == "none or merged"
    merged = chain.logits()
    assert not torch.equal(kept, merged), "two orders, two models"
    for found in (kept, merged):
        assert (found - tuned).abs().mean() < 0.3 * moved, "eight bits stay near the tuned model"


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


def test_a_budget_counts_epochs_of_whatever_a_stage_learns_from(chain: Chain) -> None:
    """Epochs are what these stages count when nothing is said."""
    half = "budget={unit: epochs, amount: 0.5}"
    tuned = chain.run("instruct", f"instruct.{half}", "peft=lora")
    assert tuned["epochs"] == pytest.approx(0.5, abs=4 / 60)
    pairs = chain.run("align", f"align.{half}", "alignment=dpo", "peft=lora")
    assert pairs["sequences"] == pytest.approx(pairs["preferences"] / 2, abs=4)
    samples = chain.run("align", f"align.{half}", "alignment=raft", "reward=rules", "align.max_new_tokens=4")
    assert samples["epochs"] == pytest.approx(0.5, abs=0.1)


def test_a_trained_reward_guides_alignment(chain: Chain) -> None:
    out = chain.shelf.new("reward", "reward")
    everything = ["model=pretrained", f"model.path={chain.directory}", *FAST, "reward=pairwise"]
    everything += ["reward_stage.budget={unit: steps, amount: 3}", "reward_stage.batch_size=4"]
    work = tiny.work(chain.shelf, "reward", out, everything, {})
    facts = registry().stage("reward")().run(work)
    assert facts["preferences"] > 0
    inputs = {"reward": out}
    aligned = chain.shelf.new("aligned")
    overrides = [*everything, "alignment=grpo", "align.max_new_tokens=6"]
    facts = registry().stage("align")().run(tiny.work(chain.shelf, "align", aligned, overrides, inputs))
    assert facts["reward_method"] == "pairwise"
