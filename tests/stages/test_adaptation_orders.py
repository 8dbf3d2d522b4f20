"""Pairs and orders that cannot work are found by the plan's checks, with the reason."""

from __future__ import annotations

from typing import Any

import pytest

from harness.compose import compose
from harness.conformance.causal import causal_model
from harness.plan.problems import problems as plan_problems

CHAINED = "stages=[corpus,tokenizer,tokens,pretrain,instruct,align,quantize,evaluate]"
QUANTIZED_FIRST = "stages=[corpus,tokenizer,tokens,pretrain,quantize,instruct,align,evaluate]"


def problems(axis: str, *overrides: str) -> str:
    cell = compose(["instruction=task", *overrides])
    choice: Any = cell.choice(axis)
    return "\n".join(str(p) for p in choice.method.check(choice.config, cell, causal_model()))


def test_full_tuning_of_packed_weights_is_refused() -> None:
    found = problems("peft", QUANTIZED_FIRST, "peft=full", "quantizer=rtn")
    assert "packed weights cannot be trained" in found


def test_qlora_and_tuning_before_quantizing_are_fine() -> None:
    assert not problems("peft", QUANTIZED_FIRST, "peft=lora", "quantizer=nf4", "alignment=dpo")
    assert not problems("peft", CHAINED, "peft=full", "quantizer=gptq", "alignment=dpo")


def test_another_adapter_on_packed_weights_is_refused() -> None:
    found = problems(
        "peft", QUANTIZED_FIRST, "peft=lora", "peft@align.peft=ia3", "quantizer=gptq", "alignment=dpo"
    )
    assert "cannot be merged first, because the weights are packed" in found


def test_an_adapter_that_is_no_change_of_weights_cannot_be_followed_by_another() -> None:
    found = problems("peft", CHAINED, "peft=prompt_tuning", "peft@align.peft=lora", "alignment=dpo")
    assert "its update is no change of weights" in found


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["peft=prompt_tuning"], "its update is no change of weights"),
        (["peft=lora", "quantize.merge=false"], "quantize.merge=false"),
        (["peft=lora"], ""),
        (["peft=full"], ""),
        (["peft=prompt_tuning", "quantizer=rtn"], ""),
    ],
)
def test_training_weights_beneath_an_adapter_is_refused(overrides: list[str], reason: str) -> None:
    stages = "stages=[corpus,tokenizer,tokens,pretrain,instruct,quantize,evaluate]"
    found = plan_problems(compose(["instruction=task", stages, "quantizer=qat", *overrides]))
    assert [problem.where for problem in found] == (["quantize: quantizer=qat"] if reason else [])
    assert all(reason in problem.message for problem in found)


@pytest.mark.parametrize(("rank", "refused"), [(32, False), (33, True)])
def test_a_rank_above_the_layer_is_refused(rank: int, refused: bool) -> None:
    found = problems("peft", CHAINED, "peft=lora", f"peft.rank={rank}")
    assert ("above the size of layer" in found) is refused


@pytest.mark.parametrize("name", ["lora", "dora", "adalora", "ia3", "adapter_serial", "llama_adapter"])
def test_targets_that_match_nothing_are_found_by_the_plan(name: str) -> None:
    options = ["peft.feedforward_modules=[]"] if name == "ia3" else []
    found = problems("peft", CHAINED, f"peft={name}", "peft.target_modules=[query]", *options)
    assert "peft.target_modules=['query']: query matches no module; the model has" in found
    assert "q_proj" in found


def test_a_reward_must_be_chosen_and_trained() -> None:
    assert "none is chosen" in problems("alignment", CHAINED, "alignment=ppo")
    assert "put the stage reward" in problems("alignment", CHAINED, "alignment=ppo", "reward=pairwise")
    assert not problems("alignment", CHAINED, "alignment=ppo", "reward=rules")


def test_packing_and_virtual_tokens_are_refused() -> None:
    found = problems("peft", CHAINED, "peft=prefix_tuning", "instruction_strategy=packing")
    assert "packs several conversations" in found
    found = problems("peft", CHAINED, "peft=prompt_tuning", "instruction_strategy=with_pretraining_data")
    assert "packs several documents of pretraining data" in found
