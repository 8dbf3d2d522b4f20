"""Strategies: counts and order of what is met."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from harness_plugins.instruction_strategy.complexity import Complexity
from harness_plugins.instruction_strategy.difficulty import Difficulty
from harness_plugins.instruction_strategy.diversity import Diversity
from harness_plugins.instruction_strategy.multi_stage import MultiStage
from harness_plugins.instruction_strategy.packing import Packing
from harness_plugins.instruction_strategy.proportional import Proportional
from harness_plugins.instruction_strategy.scaling import Scaling
from harness_plugins.instruction_strategy.with_pretraining_data import WithPretrainingData

from harness import ConfigError, Conversation, InstructionStrategy, check
from harness.conformance.test_instruction_strategy import conversations
from harness.data.skills import skill_items


def met(method: InstructionStrategy, given: Sequence[Conversation], seed: int = 0) -> list[Conversation]:
    rng = np.random.default_rng(seed)
    return method.schedule(method.select(given, rng), rng)


def test_proportional_meets_each_once_and_a_cap_limits_each_source() -> None:
    everything = met(Proportional(), conversations())
    assert sorted(c.id for c in everything) == sorted(c.id for c in conversations())
    capped = met(Proportional(Proportional.Config(cap=10)), conversations())
    assert Counter(c.source for c in capped) == {"flan": 10, "chat": 10, "self": 5}


def test_stages_follow_each_other() -> None:
    order = [c.source for c in met(MultiStage(MultiStage.Config(sources=["flan", "self"])), conversations())]
    assert order == ["chat"] * 15 + ["flan"] * 40 + ["self"] * 5
    kept = met(MultiStage(MultiStage.Config(sources=["flan", "self"], keep_share=0.2)), conversations())
    assert Counter(c.source for c in kept[15:58]) == {"flan": 40, "chat": 3}
    assert Counter(c.source for c in kept[58:]) == {"self": 5, "flan": 8}
    with pytest.raises(ConfigError, match=r"names \['news'\]"):
        met(MultiStage(MultiStage.Config(sources=["news"])), conversations())


def test_smaller_parts_lie_within_larger_ones() -> None:
    small, large = (
        {c.id for c in met(Scaling(Scaling.Config(share=share)), conversations())} for share in (0.25, 0.75)
    )
    assert (len(small), len(large)) == (15, 45)
    assert small < large


def test_diverse_conversations_come_from_all_groups() -> None:
    chosen = met(Diversity(Diversity.Config(share=0.15)), conversations())
    assert len(chosen) == 9
    assert {c.source for c in chosen} == {"flan", "chat", "self"}


def test_k_center_is_farther_apart_than_chance() -> None:
    from harness import rouge_l

    given = [c for c in conversations() for _ in range(1)]
    prompts = {c.id: c.turns[0].text.split() for c in given}

    def closest(chosen: Sequence[Conversation]) -> float:
        found = [prompts[c.id] for c in chosen]
        return float(np.mean([max(rouge_l(a, b) for b in found if b is not a) for a in found]))

    diverse = closest(met(Diversity(Diversity.Config(share=0.2)), given))
    random = [closest(met(Scaling(Scaling.Config(share=0.2)), given))]
    assert diverse < min(random)


def test_moderate_perplexity_is_kept() -> None:
    given = conversations()
    method = Difficulty(Difficulty.Config(lower=0.25, upper=0.25))
    surprise = dict(zip([c.id for c in given], method.surprise(given), strict=True))
    kept = {c.id for c in method.select(given, np.random.default_rng(0))}
    assert len(kept) == 30
    ordered = sorted(surprise.values())
    assert all(ordered[14] <= surprise[name] <= ordered[46] for name in kept)


def test_a_model_may_measure_the_perplexity() -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from harness.data.surprise import mean_surprise

    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
        )
    ).eval()
    rows = []
    for length in (4, 9, 6):
        ids = np.arange(length, dtype=np.int64)
        labels = ids.copy()
        labels[:2] = -100
        rows.append((ids, labels))
    found = mean_surprise(model, rows, batch_size=2)
    for (ids, labels), value in zip(rows, found, strict=True):
        loss = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss
        assert value == pytest.approx(float(loss), rel=1e-4)


def test_harder_instructions_have_answers_that_meet_them() -> None:
    given = [
        Conversation(
            id=item.id,
            turns=_turns(item.prompt, item.answer),
            source=item.skill,
            checks=item.checks,
        )
        for item in skill_items("instructions", "train", 0, 60)
    ]
    found = met(Complexity(Complexity.Config(share=0.5)), given)
    harder = [c for c in found if "#" in c.id]
    assert len(found) == 60
    assert len(harder) == 30
    assert {c.id.partition("#")[2] for c in harder} == {"capitals", "quotes", "chained"}
    original = {c.id: c for c in given}
    for c in harder:
        assert check(c.turns[-1].text, c.checks)
        assert not check(original[c.id.partition("#")[0]].turns[-1].text, c.checks)


def test_what_the_stage_is_asked_for() -> None:
    assert Packing().packs()
    assert not Proportional().packs()
    assert WithPretrainingData(WithPretrainingData.Config(share=0.1)).pretraining_share() == 0.1
    with pytest.raises(ConfigError, match="share=0"):
        WithPretrainingData.Config(share=0.0)


def _turns(prompt: str, answer: str):  # type: ignore[no-untyped-def]
    from harness import Role, Turn

    return Turn(role=Role.user, text=prompt), Turn(role=Role.assistant, text=answer)
