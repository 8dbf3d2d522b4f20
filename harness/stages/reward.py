"""Reward: a model of human preference, trained on pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from harness.axes import TRAINING_AXES
from harness.axes.alignment import Alignment, LogProbs, told_apart, without_pairs
from harness.axes.corpus import Split
from harness.hookspecs import hookimpl
from harness.method import Problem
from harness.model.reach import beyond_table
from harness.rng import Purpose
from harness.stage import Choices, Stage, Work
from harness.stages._leaks import with_item_texts
from harness.stages._narrowing import without_conversations, without_prompts
from harness.stages._training import TuningConfig, run_training
from harness.training.contract import Batch, LossSum
from harness.training.settings import Budget, Unit

if TYPE_CHECKING:
    from harness.axes.reward import AnswerScorer, Preference
    from harness.axes.reward import Reward as RewardMethod
    from harness.compose import Cell
    from harness.stages._adaptation import Adapted


class Reward(Stage):
    """Trains a scalar head, and the model below it, to score the chosen answer above the rejected one."""

    name = "reward"
    after = ("instruct",)
    axes: ClassVar[tuple[str, ...]] = (
        "instruction",
        "peft",
        "reward",
        "feedback",
        "evaluator",
        *TRAINING_AXES,
    )
    needs = ("model",)
    may_need = ("documents",)
    produces = "reward"
    scores_answers = True
    decontaminates = "decontaminate"
    moves_facts = (("decontaminate", "counts"),)

    @dataclass(frozen=True, kw_only=True)
    class Config(TuningConfig):
        learning_rate: float = 1e-3
        """Peak learning rate; the schedule multiplies it."""
        budget: Budget = Budget(unit=Unit.epochs, amount=1.0)  # noqa: RUF009 - frozen
        """How long to train."""

    @classmethod
    def active(cls, cell: Cell) -> bool:
        choice = cell.choice("reward", stage=cls.name)
        return choice is not None and choice.method.trains  # type: ignore[attr-defined,no-any-return]

    @classmethod
    def check(cls, cell: Cell, stage: str, meta_model: nn.Module | None) -> Iterable[Problem]:
        """Prompts there are, preferences among their answers, and sequences within the position scheme."""
        length = cell.stage_config(stage).sequence_length
        yield from beyond_table(meta_model, length, where=f"{stage}.sequence_length")
        yield from without_prompts(cell, stage, pairs=True)
        yield from told_apart(cell, stage, "feedback")
        reward = cell.choice("reward", stage=stage)
        if reward is not None:
            yield from without_pairs(cell, stage, f"reward={reward.method.name}")

    @classmethod
    def narrow(cls, part: str, choices: Choices) -> Choices:
        return with_item_texts(without_conversations(choices))

    def run(self, work: Work) -> dict[str, Any]:
        from harness.model.artifact import open_model
        from harness.model.scorer import ModelScorer, save_head
        from harness.stages._adaptation import adapt, peft_entry, without_dropout
        from harness.stages._preferences import preference_source, preferences

        method: RewardMethod = work.one("reward").build()
        loaded = open_model(work, trainable=True)
        if method.from_scratch():
            torch.manual_seed(work.stream(Purpose.init))
            loaded.model = type(loaded.model)(loaded.model.config)
        adapted = adapt(loaded, work.one("peft"))
        adapted.model.score_head = score_head(adapted, work.stream(Purpose.init))
        # The head is read where it will be: at the last token of the whole answer.
        source = preference_source(work, adapted.loaded.tokenizer, PAIRS, whole=True)
        facts: dict[str, Any] = source.facts()
        with without_dropout(adapted.model):
            facts |= run_training(work, adapted.model, source, reward_loss(method))
        head: nn.Linear = adapted.model.score_head  # type: ignore[assignment]
        del adapted.model.score_head
        facts["effects"] = adapted.trained()
        scorer = ModelScorer(replace(loaded, model=adapted.model.eval()), head)
        facts |= held_out(scorer, preferences(work, Split.validation)[0])
        adapted.save(work.out, applied=[peft_entry(adapted.choice, stage=work.stage)], template=True)
        save_head(head, work.out)
        return facts


def held_out(scorer: AnswerScorer, pairs: Sequence[Preference]) -> dict[str, Any]:
    """How often validation pairs are scored in their order, by the scorer that the policy will meet."""
    told = [pair for pair in pairs if pair.paired]
    if not told:
        return {"held_out_pairs": 0, "held_out_accuracy": None}
    prompts = [pair.prompt for pair in told]
    gap_B = scorer.score(prompts, [pair.chosen for pair in told]) - scorer.score(
        prompts, [pair.rejected for pair in told]
    )
    right_B = (gap_B > 0).float() + 0.5 * (gap_B == 0).float()
    return {
        "held_out_pairs": len(told),
        "held_out_accuracy": float(right_B.mean()),
        "held_out_accuracy_stderr": float(right_B.std() / len(told) ** 0.5) if len(told) > 1 else None,
        "held_out_margin": float(gap_B.mean()),
    }


class _Pairs(Alignment):
    """Plain pairs, as any method that learns from preferences sees them."""

    name = "pairs"


PAIRS = _Pairs()


def score_head(adapted: Adapted, seed: int) -> nn.Linear:
    """A fresh head on the model's hidden state."""
    embeddings = adapted.model.get_input_embeddings()  # type: ignore[operator]
    head = nn.Linear(embeddings.weight.shape[1], 1, bias=False)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        head.weight.normal_(0, head.in_features**-0.5, generator=generator)
    return head.to(embeddings.weight.device)


def reward_loss(method: RewardMethod) -> Callable[[nn.Module, Batch], LossSum]:
    """The training loop's loss of a learned reward."""
    from harness.model.conditioning import conditioned
    from harness.model.scorer import last_state
    from harness.stages._log_probs import joined_parts, per_token_log_probs

    def loss(model: nn.Module, batch: Batch) -> LossSum:
        ids_BT, mask_BT, labels_BT = joined_parts(batch, PAIRS.parts)
        inputs = conditioned(model, input_ids=ids_BT, attention_mask=mask_BT, labels_BT=labels_BT)
        out = model(**inputs, use_cache=False, output_hidden_states=True)
        scores = model.score_head(last_state(out.hidden_states[-1], mask_BT).float())[:, 0]  # type: ignore[operator]
        chosen_B, rejected_B = scores.chunk(2)
        answers: LogProbs = per_token_log_probs(out.logits, labels_BT)
        loss_B, facts = method.loss(chosen_B, rejected_B, -answers.mean().chunk(2)[0])
        count = torch.tensor(float(len(loss_B)), device=loss_B.device)
        return LossSum(loss_B.sum(), count, {name: value.detach().sum() for name, value in facts.items()})

    return loss


@hookimpl
def harness_stages() -> list[type[Stage]]:
    return [Reward]
