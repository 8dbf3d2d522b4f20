"""Every method that learns from its own samples raises a reward that is easy to earn, at two sizes."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch
import turns
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from harness.axes.alignment import Needs
from harness.axes.instruction import Prompt
from harness.axes.reward import AnswerScorer, Reward
from harness.registry.known import registry
from harness.stages import _rollouts
from harness.stages.align import Align
from harness.stages.instruct import Instruct

STEPS, RATE = 40, 2e-3
TOLD = {"quark": (120, 1e-2)}
"""Steps and learning rate of methods that must first learn to tell control texts apart."""
SIZES = {"small": (32, 2), "large": (64, 3)}
LETTERS, GOOD = "abcdefgh", "abcd"
ON_POLICY = [
    name
    for name, method in registry().methods("alignment").items()
    if getattr(method, "needs", None) is Needs.rollouts
]


class EarlyLetter(Reward):
    """1 for an answer that begins with one of the first four letters, else 0."""

    name = "early_letter"

    def score(
        self,
        prompts: Sequence[Prompt],
        answers: Sequence[str],
        *,
        checks: Sequence[Mapping[str, object]],
        scorer: AnswerScorer | None = None,
    ) -> Tensor:
        return torch.tensor([float(answer.strip()[:1] in tuple(GOOD)) for answer in answers])


class Start:
    """A model that answers every question with one of eight letters, each as often."""

    def __init__(self, root: Path, size: str) -> None:
        dim, layers = SIZES[size]
        self.shelf = tiny.Shelf(root / "shelf")
        tiny.byte_tokenizer(root / "hf")
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=263,
            hidden_size=dim,
            intermediate_size=2 * dim,
            num_hidden_layers=layers,
            num_attention_heads=4,
            max_position_embeddings=128,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
        LlamaForCausalLM(config).save_pretrained(root / "hf")
        rng = random.Random(0)
        rows = [
            [{"role": "user", "content": f"Q{i}"}, {"role": "assistant", "content": rng.choice(LETTERS)}]
            for i in range(600)
        ]
        file = root / "letters.jsonl"
        file.write_text("\n".join(json.dumps({"messages": row}) for row in rows))
        self.options = [
            "model=pretrained",
            f"model.path={root / 'hf'}",
            "instruction=messages",
            f"instruction.path={file}",
            "instruction.validation_share=0.2",
        ]
        self.tuned = self.shelf.new("tuned")
        training = ["instruct.budget={unit: steps, amount: 60}", "instruct.learning_rate=1e-2"]
        options = [*self.options, *training, "instruct.batch_size=32"]
        Instruct().run(tiny.work(self.shelf, "instruct", self.tuned, options, {}))

    def align(self, name: str) -> dict[str, Any]:
        """Facts of aligning it by one method."""
        out = self.shelf.new(name)
        steps, rate = TOLD.get(name, (STEPS, RATE))
        options = [
            *self.options,
            f"alignment={name}",
            "reward=rules",
            "align.batch_size=32",
            f"align.budget={{unit: steps, amount: {steps}}}",
            f"align.learning_rate={rate}",
            "align.max_new_tokens=4",
        ]
        return Align().run(tiny.work(self.shelf, "align", out, options, {"model": self.tuned}))


@pytest.fixture(scope="module", params=turns.fast(SIZES, ["small"]))
def start(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Start:
    return Start(tmp_path_factory.mktemp(request.param), request.param)


@pytest.mark.parametrize("name", ON_POLICY)
def test_a_planted_reward_rises(start: Start, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_rollouts, "rewarder", lambda work: (EarlyLetter(), None))
    facts = start.align(name)
    before, after = facts["held_out_reward_start"], facts["held_out_reward_end"]
    assert 0.3 < before < 0.7
    assert after > before + 0.2
    assert facts["samples_are_of"] == ("the start" if name == "best_of_n" else "the policy")


def test_no_method_is_forgotten() -> None:
    assert {"ppo", "grpo", "rloo", "raft", "best_of_n", "quark"} <= set(ON_POLICY)
