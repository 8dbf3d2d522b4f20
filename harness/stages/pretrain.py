"""Stage pretrain: a new model trained on packed windows of the token files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.axes import MODEL_AXES, TRAINING_AXES
from harness.data.packing import Packing
from harness.data.token_files import TokenFiles
from harness.data.windows import PackedSource
from harness.errors import ConfigError
from harness.hookspecs import hookimpl
from harness.method import Choice, Problem
from harness.rng import Purpose
from harness.stage import Stage, Work
from harness.stages._training import TrainingConfig, run_training
from harness.training.examples import rows_of
from harness.training.losses import language_modeling_loss
from harness.training.settings import Budget, Unit

if TYPE_CHECKING:
    from torch import nn

    from harness.compose import Cell


class Pretrain(Stage):
    """Trains the composed transformer from scratch on an objective.

    Raises: ConfigError where token ids lie outside the model
    """

    name = "pretrain"
    after = ("tokens",)
    axes = (*MODEL_AXES, "objective", "curriculum", *TRAINING_AXES)
    needs = ("tokens", "tokenizer")
    produces = "model"
    full_windows = splits_windows = True
    moves_facts = (("packing", "counts"),)

    @dataclass(frozen=True, kw_only=True)
    class Config(TrainingConfig):
        learning_rate: float = 3e-3
        """Peak learning rate; the schedule multiplies it."""
        budget: Budget = Budget(unit=Unit.bytes, amount=2e6)  # noqa: RUF009 - frozen
        """How long to train."""
        packing: Packing = Packing.concatenate
        """How documents share sequences: `concatenate` cuts them where one is full, `best_fit` cuts only
        those longer than a sequence, at the price of some padding."""

    @classmethod
    def check(cls, cell: Cell, stage: str, meta_model: nn.Module | None) -> Iterable[Problem]:
        """A model to build, windows that it can hold, and an objective that makes sense of them."""
        spec, length = cell.spec(), cell.stage_config(stage).sequence_length
        if spec is None:
            message = "it builds a model, and model=pretrained brings one; drop one of them"
            yield Problem(where=stage, message=message)
            return
        if length > spec.max_length:
            yield Problem(
                where=f"{stage}.sequence_length",
                message=f"{length} exceeds model.max_length={spec.max_length}; lower the one or raise the "
                "other",
            )
        objective, architecture = cell.choice("objective"), cell.choice("architecture")
        assert objective is not None
        assert architecture is not None
        method = objective.build()
        window_T = np.arange(length + 1)
        try:
            method.example(
                window_T,
                np.random.default_rng(0),
                encoder=architecture.method.has_encoder(),  # type: ignore[attr-defined]
                sentinels=np.arange(length + 1, length + 1 + method.num_sentinels()),
            )
        except ConfigError as error:
            yield Problem(where="objective", message=f"objective={method.name}: {error}")

    def run(self, work: Work) -> dict[str, Any]:
        from harness.model import build
        from harness.model.artifact import Delta, save_model
        from harness.model.effects import model_effects

        settings: Pretrain.Config = work.config
        spec = work.spec()
        assert spec is not None
        files = TokenFiles(work.inputs["tokens"].path)
        objective = work.one("objective").build()
        sentinels = np.arange(spec.vocab_size - objective.num_sentinels(), spec.vocab_size)
        if files.vocab_size > spec.vocab_size - len(sentinels):
            raise ConfigError(
                f"the tokenizer holds {files.vocab_size} tokens, the objective {len(sentinels)} sentinels, "
                f"more than model.vocab_size={spec.vocab_size}"
            )
        architecture = work.one("architecture").method
        source = PackedSource(
            files,
            length=settings.sequence_length,
            seed=work.stream(Purpose.data_order),
            packing=settings.packing,
            curriculum=work.one("curriculum").build() if work.choices.get("curriculum") else None,
            rows=rows_of(
                objective,
                encoder=architecture.has_encoder(),  # type: ignore[attr-defined]
                prefix=architecture.uses_prefix(),  # type: ignore[attr-defined]
                sentinels=sentinels,
            ),
        )
        source.planned = planned_windows(settings, source)
        shape: dict[str, Choice] = {axis: work.one(axis) for axis in MODEL_AXES}
        model = build(spec, shape, seed=work.stream(Purpose.init))
        model.to(work.device)
        proven = model_effects(model, shape, length=min(16, spec.max_length))
        facts = run_training(work, model, source, language_modeling_loss)
        facts["effects"] = {**facts.get("effects", {}), **proven}
        save_model(
            work.out,
            model,
            base={},
            delta=Delta.weights,
            applied=[],
            tokenizer=work.inputs["tokenizer"].key,
        )
        return facts | {
            "padding_share": source.padding_share(),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "spec": {name: getattr(spec, name) for name in spec.__dataclass_fields__},
        }


def planned_windows(settings: TrainingConfig, source: PackedSource) -> int:
    """Windows that the budget will draw; a curriculum orders that many.

    Raises: ConfigError where a curriculum cannot know how long the run is
    """
    amount, unit = settings.budget.amount, settings.budget.unit
    windows = {
        Unit.bytes: amount / source.bytes_per_window(),
        Unit.tokens: amount / source.tokens_per_window,
        Unit.steps: amount * settings.batch_size,
        Unit.epochs: amount * source.num_samples,
    }.get(unit)
    if windows is not None:
        # A little more than needed, so that the last steps of a run do not begin a second round.
        return round(1.02 * windows) + settings.batch_size
    if source.curriculum is not None and source.curriculum.name != "none":
        raise ConfigError(
            f"curriculum={source.curriculum.name} orders a run of known length; "
            f"pretrain.budget.unit={unit.value} tells it only afterwards: use bytes, tokens, steps or epochs"
        )
    return source.num_samples


@hookimpl
def harness_stages() -> list[type[Stage]]:
    return [Pretrain]
