"""Quantize: the model in few bits."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from harness.axes import TRAINING_AXES
from harness.axes.peft import adapter_before, adapting_stage
from harness.compose.schema import stage_key
from harness.errors import ConfigError, EffectError, IncompatibleError
from harness.hookspecs import hookimpl
from harness.method import Choice, Problem
from harness.model.calibration import CalibrationConfig, calibrate, calibration_problems, text_problems
from harness.model.reach import beyond_table
from harness.model.turning import stands_on, turning_problems
from harness.stage import Choices, Stage, Work
from harness.stages._training import TrainingConfig
from harness.training.settings import Budget, Unit

if TYPE_CHECKING:
    from torch import nn

    from harness.axes.quantizer import Quantizer
    from harness.compose import Cell
    from harness.model.artifact import Loaded


MADE_OF = ("rotation", "quantizer")
"""Axes that matter to methods that train and to those that do not."""


class Quantize(Stage):
    """Packs the linear layers. An adapter is merged first where it can be, else it stays in 16 bits.

    So both orders exist after tuning: merge, then quantize; or quantize the base beneath its adapter. A
    method that trains runs the loop first; the options of training matter to it alone.
    """

    name = "quantize"
    after = ("align",)
    axes: ClassVar[tuple[str, ...]] = ("rotation", "quantizer", *TRAINING_AXES)
    needs = ("model",)
    may_need = ("tokens", "documents")
    produces = "model"
    moves_facts = (
        ("calibration_sequences", "calibration_sha256"),
        ("calibration_length", "calibration_sha256"),
    )
    trial = ("quantizer=rtn",)

    @dataclass(frozen=True, kw_only=True)
    class Config(TrainingConfig, CalibrationConfig):
        learning_rate: float = 1e-4
        """Peak learning rate of quantization-aware training; the schedule multiplies it."""
        budget: Budget = Budget(unit=Unit.steps, amount=100)  # noqa: RUF009 - frozen
        """How long to train; a step is one batch."""
        batch_size: int = 8
        """Sequences in one global batch."""
        sequence_length: int = 128
        """Tokens of one training sequence."""
        held_out_sequences: int = 8
        """Further sequences that nothing is fitted to: layer errors are reported on them, and a method that
        has rounding to fall back on chooses by them."""
        merge: bool = True
        """Whether an adapter that can be merged is, before; else the base alone is packed beneath it."""

        def __post_init__(self) -> None:
            TrainingConfig.__post_init__(self)
            CalibrationConfig.__post_init__(self)
            if self.held_out_sequences < 0:
                raise ConfigError(f"quantize.held_out_sequences={self.held_out_sequences} is negative")

    config: Config

    @classmethod
    def active(cls, cell: Cell) -> bool:
        return cell.choice("quantizer", stage=cls.name) is not None

    @classmethod
    def draws(cls, part: str, choices: Choices) -> bool:
        choice = choices["quantizer"]
        assert isinstance(choice, Choice)
        return choice.method.trains or choice.build().needs_calibration  # type: ignore[attr-defined,no-any-return]

    @classmethod
    def narrow(cls, part: str, choices: Choices) -> Choices:
        choice = choices["quantizer"]
        assert isinstance(choice, Choice)
        read = choices if choice.method.trains else {n: choices[n] for n in choices if n in MADE_OF}  # type: ignore[attr-defined]
        return read

    @classmethod
    def check(cls, cell: Cell, stage: str, meta_model: nn.Module | None) -> Iterable[Problem]:
        choice, adapter = cell.choice("quantizer", stage=stage), adapter_before(cell, stage)
        if choice is None:
            return
        method, config = choice.build(), cell.stage_config(stage)
        yield from turning_problems(cell, stage, meta_model)
        yield from calibration_problems(cell, stage, method, meta_model, held_out=config.held_out_sequences)
        if not config.merge:
            yield from _experts_adapted(cell, stage, meta_model)
        if not method.trains:
            return
        length, where = config.sequence_length, f"{stage_key(stage)}.sequence_length"
        yield from beyond_table(meta_model, length, where=where)
        if method.reads_tokens() and not method.needs_calibration:
            yield from text_problems(cell, stage, method, rows=1, length=length, where=where)
        if adapter is None:
            return
        merges = config.merge
        if not (adapter.mergeable and merges):
            why = f"{stage}.merge=false" if not merges else "its update is no change of weights"
            yield Problem(
                where=f"{stage}: quantizer={choice.method.name}",
                message=f"it trains the weights, and the adapter of peft={adapter.name} stands on the "
                f"old: it is not merged first ({why}); tune with peft=full or a method that can be merged",
            )

    def run(self, work: Work) -> dict[str, Any]:
        from harness.model.artifact import Delta, open_dense
        from harness.model.snapshot import prove, snapshot
        from harness.model.sparsity import sparsity
        from harness.stages._quantization_training import train_quantized

        choice = work.one("quantizer")
        method: Quantizer = choice.build()
        loaded = open_dense(work, what=f"quantizer={method.name}", merge=work.config.merge)
        sparsity_before = sparsity(loaded.model)
        held_out = work.config.held_out_sequences
        calibration = calibrate(work, loaded, held_out=held_out) if method.needs_calibration else None
        rotation, turned = rotated(work, loaded)
        before = snapshot(loaded.model)
        started = time.perf_counter()
        training = {"training": train_quantized(work, loaded, method)} if method.trains else {}
        model = method.quantize(loaded.model, calibration)
        seconds = time.perf_counter() - started
        effects = prove(before, snapshot(model), what=f"quantizer={method.name}")
        loaded.model = model
        loaded.save(work.out, delta=Delta.packed, applied=[*rotation, choice])
        facts = measured_bits(model, method) | method.facts | training
        facts |= {"sparsity_before": sparsity_before, "sparsity": sparsity(model), "seconds": seconds}
        facts["adapter"] = "kept in 16 bits" if loaded.adapter else "none or merged"
        facts["calibration_sha256"] = calibration.sha256 if calibration else ""
        facts["calibration_tokens"] = sum(b.numel() for b in calibration.batches_BT) if calibration else 0
        facts["effects"] = turned | {f"quantizer={method.name}": effects}
        return facts


def _experts_adapted(cell: Cell, stage: str, meta_model: nn.Module | None) -> Iterable[Problem]:
    """An unmerged adapter on experts that lie in one parameter, which packing gives layers of their own."""
    from harness.ops.experts import expert_shapes

    tuning = adapting_stage(cell, stage)
    choice = None if tuning is None else cell.choice("peft", stage=tuning)
    if choice is None or meta_model is None:
        return
    try:
        names = choice.build().targets(meta_model)  # type: ignore[attr-defined]
    except (ConfigError, EffectError, IncompatibleError):
        return  # the method's own check says why
    if experts := sorted(expert_shapes(meta_model).keys() & set(names)):
        yield Problem(
            where=f"{stage_key(stage)}.merge",
            message=f"the adapter of peft={choice.method.name} stands on experts in one parameter "
            f"({experts[0]}), and packing gives each expert a layer of its own; let it be merged "
            f"({stage_key(stage)}.merge=true), or put {stage} before {tuning}",
        )


def rotated(work: Work, loaded: Loaded) -> tuple[list[Choice], dict[str, Any]]:
    """Rotate the model where the cell says so: the choice, and the effect proof.

    Raises: IncompatibleError where an adapter stands on the weights unmerged
    """
    from harness.model.snapshot import prove, snapshot

    if "rotation" not in work.choices:
        return [], {}
    choice = work.one("rotation")
    what = f"rotation={choice.method.name}"
    if loaded.adapter is not None:
        raise IncompatibleError(stands_on(choice, loaded.adapter.method.name))
    before = snapshot(loaded.model)
    loaded.model = choice.build().rotate(loaded.model)
    return [choice], {what: prove(before, snapshot(loaded.model), what=what)}


def measured_bits(model: nn.Module, method: Quantizer) -> dict[str, Any]:
    """Bits for each weight, by formula and as stored, and the model's size.

    Raises: EffectError where they differ by more than 1 %
    """
    from harness.ops.packed_linear import PackedLinear

    packed = {n: m for n, m in model.named_modules() if isinstance(m, PackedLinear)}
    weights = sum(m.num_weights() for m in packed.values())
    stored = sum(m.stored_bits() for m in packed.values()) / weights
    formula = sum(
        m.num_weights() * method.bits_per_weight(m.in_features, m.out_features) for m in packed.values()
    )
    formula /= weights
    if abs(stored / formula - 1) > 0.01:
        raise EffectError(
            f"quantizer={method.name} stores {stored:.3f} bits a weight instead of {formula:.3f}"
        )
    # What is saved: masks and frequencies that a model computes for itself are no weights.
    tensors = {t.data_ptr(): t.numel() * t.element_size() for t in model.state_dict().values()}
    dense = sum({p.data_ptr(): p.numel() for p in model.parameters()}.values())
    return {
        "bits_per_weight": stored,
        "bits_per_weight_formula": formula,
        "packed_layers": len(packed),
        "packed_weights": weights,
        "packed_share": weights / (weights + dense),
        "model_bits_per_weight": 8 * sum(tensors.values()) / (weights + dense),
        "model_bytes": sum(tensors.values()),
    }


@hookimpl
def harness_stages() -> list[type[Stage]]:
    return [Quantize]
