"""The stage `factorize`: weights of lower rank, between tuning and quantization."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from harness import (
    CalibrationConfig,
    Choice,
    Choices,
    Delta,
    EffectError,
    Problem,
    Stage,
    Work,
    calibrate,
    calibration_problems,
    hookimpl,
    open_dense,
    packed_before,
    prove,
    snapshot,
    weights_by_layer,
)

from .factorizer import Factorizer

if TYPE_CHECKING:
    from torch import nn

    from harness import Cell


class Factorize(Stage):
    """Gives every linear layer a weight of lower rank; an adapter is merged first where it can be.

    Raises: EffectError where a weight keeps a higher rank than asked
    """

    name = "factorize"
    after = ("align",)
    before = ("quantize",)
    axes: ClassVar[tuple[str, ...]] = ("factorizer",)
    needs = ("model",)
    may_need = ("tokens", "documents")
    produces = "model"
    trial = ("factorizer=whitened", "factorize.calibration_sequences=8", "factorize.calibration_length=32")

    Config = CalibrationConfig

    @classmethod
    def active(cls, cell: Cell) -> bool:
        return cell.choice("factorizer", stage=cls.name) is not None

    @classmethod
    def draws(cls, part: str, choices: Choices) -> bool:
        choice = choices["factorizer"]
        assert isinstance(choice, Choice)
        return bool(choice.build().needs_calibration)

    @classmethod
    def check(cls, cell: Cell, stage: str, meta_model: nn.Module | None) -> Iterable[Problem]:
        choice = cell.choice("factorizer", stage=stage)
        assert choice is not None
        yield from calibration_problems(cell, stage, choice.build(), meta_model)
        if packed := packed_before(cell, stage):
            yield Problem(where=stage, message=f"{packed} packs the weights before; put {stage} before it")

    def run(self, work: Work) -> dict[str, Any]:
        choice = work.one("factorizer")
        method: Factorizer = choice.build()
        what = f"factorizer={choice.method.name}"
        loaded = open_dense(work, what=what)
        calibration = calibrate(work, loaded) if method.needs_calibration else None
        before = snapshot(loaded.model)
        loaded.model = method.factorize(loaded.model, calibration)
        effects = prove(before, snapshot(loaded.model), what=what)
        ranks = measured_ranks(loaded.model, method)
        loaded.save(work.out, delta=Delta.weights, applied=[choice])
        return {
            "rank": sum(ranks.values()) / len(ranks),
            "layer_ranks": ranks,
            "calibration_sha256": calibration.sha256 if calibration else "",
            "effects": {what: effects},
        }


def measured_ranks(model: nn.Module, method: Factorizer) -> dict[str, int]:
    """The rank of each layer's weight as it is stored.

    Raises: EffectError where one is above what was asked for
    """
    import torch

    ranks = {}
    for name, weight_OI in weights_by_layer(model):
        weight = weight_OI.detach().float()
        ranks[name] = int(torch.linalg.matrix_rank(weight, rtol=1e-4).max())
        asked = max(1, round(min(weight.shape[-2:]) * method.config.rank_share))
        if ranks[name] > asked:
            raise EffectError(
                f"factorizer={method.name} left rank {ranks[name]} in layer {name}, not {asked} at most"
            )
    return ranks


@hookimpl
def harness_stages() -> list[type[Stage]]:
    return [Factorize]
