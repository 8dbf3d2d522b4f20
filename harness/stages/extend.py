"""Stage extend: a trained model made to read longer contexts, with or without further training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

from harness.axes import TRAINING_AXES
from harness.data.packing import Packing
from harness.data.token_files import TokenFiles
from harness.data.windows import PackedSource
from harness.errors import ConfigError, EffectError, IncompatibleError
from harness.hookspecs import hookimpl
from harness.method import Problem
from harness.model.reach import beyond_table
from harness.ops.extension import trained_length
from harness.rng import Purpose
from harness.stage import Stage, Work
from harness.stages._training import TrainingConfig, run_training
from harness.training.losses import language_modeling_loss
from harness.training.settings import Budget, Unit

if TYPE_CHECKING:
    from torch import nn

    from harness.compose import Cell
    from harness.model.artifact import Loaded


class Extend(Stage):
    """Applies a context method; trains on long windows where the method wants it or the config says so.

    Raises: ConfigError where sequences exceed the extended length, IncompatibleError for packed weights
    """

    name = "extend"
    after = ("pretrain",)
    axes: ClassVar[tuple[str, ...]] = ("context", *TRAINING_AXES)
    needs = ("model",)
    may_need = ("tokens",)
    produces = "model"
    full_windows = True
    moves_facts = (("packing", "counts"), ("train", "counts"))

    @dataclass(frozen=True, kw_only=True)
    class Config(TrainingConfig):
        train: bool | None = None
        """Whether to train after applying the method; null = as the method is meant."""
        learning_rate: float = 1e-3
        """Peak learning rate; the schedule multiplies it."""
        budget: Budget = Budget(unit=Unit.bytes, amount=5e5)  # noqa: RUF009 - frozen
        """How long to train, over all lengths."""
        batch_size: int = 8
        """Sequences in one global batch."""
        sequence_length: int | None = None  # type: ignore[assignment]
        """Tokens of one sequence; null = the extended length."""
        packing: Packing = Packing.concatenate
        """How documents share sequences: `concatenate` cuts them where one is full, `best_fit` cuts only
        those longer than a sequence, at the price of some padding."""

        def __post_init__(self) -> None:
            shared = {field.name: getattr(self, field.name) for field in fields(TrainingConfig)}
            if self.sequence_length is None:
                del shared["sequence_length"]
            TrainingConfig(**shared)

    @classmethod
    def active(cls, cell: Cell) -> bool:
        return cell.choice("context", stage=cls.name) is not None

    @classmethod
    def check(cls, cell: Cell, stage: str, meta_model: nn.Module | None) -> Iterable[Problem]:
        """An extended length that the position scheme can hold, and that sequences keep to."""
        choice, spec = cell.choice("context", stage=stage), cell.spec()
        if choice is None or (spec is None and meta_model is None):
            return
        method: Any = choice.method
        try:
            trained = trained_length(meta_model) if spec is None else spec.max_length  # type: ignore[arg-type]
            length = method.extended(choice.config, trained)
        except (ConfigError, IncompatibleError) as error:
            yield Problem(where="context", message=str(error))
            return
        yield from beyond_table(meta_model, length, where="context.factor")
        settings = cell.stage_config(stage)
        asked = settings.sequence_length
        if asked is not None and asked > length:
            yield Problem(where=f"{stage}.sequence_length", message=too_long(asked, length))
        trains = method.trains if settings.train is None else settings.train
        if trains and asked is not None and asked <= trained < length:
            yield Problem(
                where=f"{stage}.sequence_length",
                message=f"{asked} is within the {trained} tokens that the model was trained on, so that "
                f"nothing beyond them would be learned; leave it null, the extended length of {length}",
            )

    def run(self, work: Work) -> dict[str, Any]:
        from harness.model.artifact import Delta, describe, open_model, save_model
        from harness.model.snapshot import changes, snapshot

        choice, settings = work.one("context"), work.config
        method = choice.build()
        loaded = open_model(work)
        before, trained = snapshot(loaded.model), trained_length(loaded.model)
        model = method.apply(loaded.model)
        length = trained_length(model)
        effects = changes(before, snapshot(model)) | {"length": [trained, length]}
        effects["attention_replaced"] = any(
            getattr(module, "context_attend", None) is not None for module in model.modules()
        )
        trains = method.trains if settings.train is None else settings.train
        if (
            length == trained
            and not trains
            and not any(effects[name] for name in effects if name != "length")
        ):
            raise EffectError(
                f"context={method.name} was asked for and changed nothing: the length stays {length} tokens; "
                "raise context.factor"
            )
        facts: dict[str, Any] = {"length": length}
        if trains:
            lengths = getattr(method, "lengths", lambda: [length / trained])()
            facts |= train_on(work, loaded, model, [round(trained * multiple) for multiple in lengths])
        save_model(
            work.out,
            model if trains else None,
            base=loaded.base,
            delta=Delta.weights if trains else Delta.none,
            applied=[*loaded.applied, describe(choice)],
            tokenizer=loaded.tokenizer_from,
            template=loaded.template,
        )
        return facts | {"effects": {f"context={method.name}": effects}}


def train_on(work: Work, loaded: Loaded, model: nn.Module, lengths: list[int]) -> dict[str, Any]:
    """Train on windows of each length in turn, with equal shares of the budget; facts of the last."""
    if loaded.packed:
        raise IncompatibleError(
            "stage extend trains all weights and these are packed; put it before quantize"
        )
    if "tokens" not in work.inputs:
        raise IncompatibleError(
            "stage extend trains on token files; put tokens before it or set extend.train=false"
        )
    settings: Extend.Config = work.config
    asked: int | None = settings.sequence_length
    if asked is not None and asked > lengths[-1]:
        raise ConfigError(f"extend.sequence_length: {too_long(asked, lengths[-1])}")
    files, facts, parts = TokenFiles(work.inputs["tokens"].path), {}, []
    model.requires_grad_(True)
    budget = replace(settings.budget, amount=settings.budget.amount / len(lengths))
    for index, length in enumerate(lengths):
        length = length if asked is None else min(length, asked)
        source = PackedSource(
            files,
            length=length,
            seed=work.stream(Purpose.data_order) + index,
            packing=settings.packing,
        )
        now = replace(settings, sequence_length=length, budget=budget)
        part = replace(work, checkpoints=work.checkpoints / f"length-{length}")
        facts = run_training(part, model, source, language_modeling_loss, now)
        facts["padding_share"] = source.padding_share()
        parts.append({name: facts[name] for name in ("steps", "tokens", "seconds", "flops", "final_loss")})
    sums = {name: sum(part[name] for part in parts) for name in ("steps", "tokens", "seconds", "flops")}
    return {**facts, **sums, "lengths": lengths, "parts": parts}


def too_long(asked: int, length: int) -> str:
    """What to say of sequences beyond the extended length."""
    return f"{asked} exceeds the extended length of {length} tokens; lower it or raise context.factor"


@hookimpl
def harness_stages() -> list[type[Stage]]:
    return [Extend]
