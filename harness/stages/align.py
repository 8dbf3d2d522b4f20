"""Align: learning from preferences or from rewarded samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from harness.axes import TRAINING_AXES
from harness.axes.alignment import Needs
from harness.axes.batch_schedule import BatchSchedule
from harness.errors import ConfigError
from harness.hookspecs import hookimpl
from harness.method import Choice, Problem
from harness.model.reach import beyond_table
from harness.stage import Choices, Stage, Work
from harness.stages._leaks import with_item_texts
from harness.stages._narrowing import without_conversations, without_prompts
from harness.stages._training import TuningConfig, run_training
from harness.training.settings import Budget, Unit

if TYPE_CHECKING:
    from harness.axes.alignment import Alignment
    from harness.compose import Cell
    from harness.stages._adaptation import Adapted
    from harness.stages._log_probs import Reference


class Align(Stage):
    """Tunes the model on preferences, or on its own samples where the method wants them.

    Policy and reference start as the same artifact; the reference stays as it is.
    """

    name = "align"
    after = ("reward",)
    axes: ClassVar[tuple[str, ...]] = (
        "instruction",
        "peft",
        "reward",
        "feedback",
        "alignment",
        "evaluator",
        *TRAINING_AXES,
    )
    needs = ("model",)
    may_need = ("documents", "reward")
    produces = "model"
    scores_answers = True
    decontaminates = "decontaminate"
    moves_facts = (("decontaminate", "counts"), ("max_new_tokens", "counts"))

    @dataclass(frozen=True, kw_only=True)
    class Config(TuningConfig):
        learning_rate: float = 5e-4
        """Peak learning rate; the schedule multiplies it."""
        budget: Budget = Budget(unit=Unit.epochs, amount=1.0)  # noqa: RUF009 - frozen
        """How long to train."""
        max_new_tokens: int = 32
        """Longest sampled answer, for methods that learn from their own samples."""
        temperature: float = 1.0
        """Temperature of those samples."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.max_new_tokens < 1:
                raise ConfigError(f"align.max_new_tokens={self.max_new_tokens} must be at least 1")
            if self.temperature <= 0:
                raise ConfigError(f"align.temperature={self.temperature} must be positive")

    @classmethod
    def active(cls, cell: Cell) -> bool:
        return cell.choice("alignment", stage=cls.name) is not None

    @classmethod
    def check(cls, cell: Cell, stage: str, meta_model: nn.Module | None) -> Iterable[Problem]:
        """Prompts there are, and they and the answers sampled to them within the position scheme."""
        choice, config = cell.choice("alignment", stage=stage), cell.stage_config(stage)
        assert choice is not None
        samples = choice.method.needs is Needs.rollouts  # type: ignore[attr-defined]
        length = config.sequence_length + (config.max_new_tokens if samples else 0)
        yield from beyond_table(meta_model, length, where=f"{stage}.sequence_length")
        yield from without_prompts(cell, stage, pairs=not samples)
        if samples:
            yield from _torn_groups(cell, stage)

    @classmethod
    def narrow(cls, part: str, choices: Choices) -> Choices:
        choice = choices["alignment"]
        assert isinstance(choice, Choice)
        method: type[Alignment] = choice.method  # type: ignore[assignment]
        unused = {
            "feedback": method.needs is not Needs.preferences,
            "reward": not method.needs_reward,
        }
        used = {axis: choice for axis, choice in choices.items() if not unused.get(axis)}
        return with_item_texts(without_conversations(used))

    def run(self, work: Work) -> dict[str, Any]:
        from harness.model.artifact import describe, open_model
        from harness.stages._adaptation import adapt, peft_entry, without_dropout

        method: Alignment = work.one("alignment").build()
        loaded = open_model(work, trainable=True)
        adapted = adapt(loaded, work.one("peft"))
        reference = reference_of(work, adapted) if method.needs_reference else None
        if method.needs is Needs.preferences:
            from harness.stages._held_out_pairs import HeldOutPairs
            from harness.stages._log_probs import preference_loss
            from harness.stages._preferences import preference_source

            held_out = HeldOutPairs(work, adapted.loaded.tokenizer, adapted.model, method)
            source: Any = preference_source(work, adapted.loaded.tokenizer, method)
            loss = preference_loss(method, reference)
            facts: dict[str, Any] = source.facts()
        else:
            from harness.stages._rollout_loss import rollout_loss
            from harness.stages._rollouts import RolloutSource

            source = RolloutSource(work, adapted, method, reference)
            loss = rollout_loss(
                method, samples_per_prompt=source.samples_per_prompt, temperature=work.config.temperature
            )
            facts = dict(source.cleared)
        settings = work.config
        if method.needs is Needs.rollouts:  # a policy gradient's loss hovers around zero: only NaN is a spike
            settings = replace(settings, spike_factor=None)
        with without_dropout(adapted.model):  # or policy and reference would differ from the first step on
            facts |= run_training(work, adapted.model, source, loss, settings)
            if method.needs is Needs.rollouts:
                facts |= source.finish(seconds=facts["seconds"])
            else:
                facts |= held_out.facts(adapted.model)
        facts["effects"] = adapted.trained()
        facts["reference"] = "none" if reference is None else "the start, frozen"
        applied = [
            {**peft_entry(adapted.choice, stage=work.stage)},
            {**describe(work.one("alignment")), "stage": work.stage},
        ]
        return facts | adapted.save(work.out, applied=applied, template=True)


def reference_of(work: Work, adapted: Adapted) -> Reference:
    """The model as it was before this stage: its fresh adapter switched off, else loaded a second time."""
    if adapted.fresh and adapted.method.reversible:

        @contextmanager
        def disabled() -> Iterator[nn.Module]:
            with adapted.method.disabled(adapted.model):
                yield adapted.model

        return disabled
    from harness.model.artifact import open_model

    copy = open_model(work).model.requires_grad_(False)

    @contextmanager
    def frozen() -> Iterator[nn.Module]:
        yield copy

    return frozen


def _torn_groups(cell: Cell, stage: str) -> Iterable[Problem]:
    """Batches, at any time of a training, that hold a part of the samples of a prompt."""
    choice, schedule = cell.choice("alignment", stage=stage), cell.choice("batch_schedule", stage=stage)
    assert choice is not None
    group = choice.build().samples_per_prompt()  # type: ignore[attr-defined]
    if schedule is None:
        return
    growth: BatchSchedule = schedule.build()  # type: ignore[assignment]
    full = cell.stage_config(stage).batch_size
    size = growth.uneven(full, group)
    if size is not None:
        yield Problem(
            where=f"{stage}.batch_size",
            message=f"a batch of {size} (batch_schedule={schedule.method.name}) tears the {group} samples "
            f"that alignment={choice.method.name} draws for each prompt; use {growth.evened(full, group)}",
        )


@hookimpl
def harness_stages() -> list[type[Stage]]:
    return [Align]
