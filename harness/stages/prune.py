"""Prune: a share of the linear layers' weights set to zero."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from harness.axes.quantizer import packed_before
from harness.errors import EffectError
from harness.hookspecs import hookimpl
from harness.method import Choice, Problem
from harness.model.calibration import CalibrationConfig, calibrate, calibration_problems
from harness.stage import Choices, Stage, Work

if TYPE_CHECKING:
    from torch import nn

    from harness.axes.pruner import Pruner
    from harness.compose import Cell


class Prune(Stage):
    """Removes weights, in a model that stays dense in form; what is packed or trained after it may fill them.

    An adapter is merged first where it can be, else it stays beside the pruned weights, whole.
    Raises: EffectError where a layer is less sparse than asked, or its pattern does not hold
    """

    name = "prune"
    after = ("align",)
    before = ("quantize",)
    axes: ClassVar[tuple[str, ...]] = ("pruner",)
    needs = ("model",)
    may_need = ("tokens", "documents")
    produces = "model"
    moves_facts = (
        ("calibration_sequences", "calibration_sha256"),
        ("calibration_length", "calibration_sha256"),
    )
    trial = ("pruner=wanda", "prune.calibration_sequences=8", "prune.calibration_length=32")

    Config = CalibrationConfig

    @classmethod
    def active(cls, cell: Cell) -> bool:
        return cell.choice("pruner", stage=cls.name) is not None

    @classmethod
    def draws(cls, part: str, choices: Choices) -> bool:
        choice = choices["pruner"]
        assert isinstance(choice, Choice)
        return bool(choice.build().needs_calibration)

    @classmethod
    def check(cls, cell: Cell, stage: str, meta_model: nn.Module | None) -> Iterable[Problem]:
        choice = cell.choice("pruner", stage=stage)
        assert choice is not None
        yield from calibration_problems(cell, stage, choice.build(), meta_model)
        if packed := packed_before(cell, stage):
            yield Problem(
                where=f"{stage}: pruner={choice.method.name}",
                message=f"{packed} packs the weights before; put {stage} before {packed} in stages",
            )

    def run(self, work: Work) -> dict[str, Any]:
        from harness.model.artifact import Delta, open_dense
        from harness.model.snapshot import prove, snapshot
        from harness.model.sparsity import sparsity

        choice = work.one("pruner")
        method: Pruner = choice.build()
        what = f"pruner={choice.method.name}"
        loaded = open_dense(work, what=what)
        calibration = calibrate(work, loaded) if method.needs_calibration else None
        before, sparsity_before = snapshot(loaded.model), sparsity(loaded.model)
        started = time.perf_counter()
        loaded.model = method.prune(loaded.model, calibration)
        seconds = time.perf_counter() - started
        effects = prove(before, snapshot(loaded.model), what=what)
        loaded.save(work.out, delta=Delta.weights, applied=[choice])
        facts = measured(loaded.model, method) | method.facts
        facts["sparsity_before"] = sparsity_before
        facts["seconds"] = seconds
        facts["adapter"] = "kept whole" if loaded.adapter else "none or merged"
        facts["calibration_sha256"] = calibration.sha256 if calibration else ""
        facts["calibration_tokens"] = sum(b.numel() for b in calibration.batches_BT) if calibration else 0
        facts["effects"] = {what: effects}
        return facts


def measured(model: nn.Module, method: Pruner) -> dict[str, Any]:
    """Share of zeros in every layer, in all of them together, and among all weights of the model.

    Raises: EffectError where a layer has fewer than were asked for, or too many of a group stay
    """
    from harness.model.sparsity import weights_by_layer

    what, asked = f"pruner={method.name}", method.config.share
    shares: dict[str, float] = {}
    zeros, weights = 0, 0
    for name, weight_OI in weights_by_layer(model):
        count = int((weight_OI == 0).sum())
        shares[name] = count / weight_OI.numel()
        # A share of few weights is rounded to whole ones: by half a weight of a row at most.
        if shares[name] < asked - 0.5 / weight_OI.shape[-1] - 1e-9:
            raise EffectError(f"{what} removed {shares[name]:.4f} of layer {name} instead of {asked:g}")
        if method.config.kept is not None:
            n, m = method.config.kept
            most = int((weight_OI.unflatten(-1, (-1, m)) != 0).sum(-1).max())
            if most > n:
                raise EffectError(f"{what} left {most} of {m} inputs in layer {name}, not {n} at most")
        zeros, weights = zeros + count, weights + weight_OI.numel()
    return {
        "sparsity": zeros / weights,
        "layer_sparsity": shares,
        "pruned_layers": len(shares),
        "pruned_share": zeros / sum(parameter.numel() for parameter in model.parameters()),
    }


@hookimpl
def harness_stages() -> list[type[Stage]]:
    return [Prune]
