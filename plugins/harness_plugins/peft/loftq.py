"""LoftQ: LoRA on packed weights that starts by repairing what packing lost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from harness import (
    CellView,
    IncompatibleError,
    Method,
    OnPacked,
    PackedLinear,
    Problem,
    hookimpl,
    packed_before,
    tuned_by,
    weight_matrix,
)

from ._lora import LoRAConfig, LoRAFamily
from ._start import adapted_layers, factors


class LoftQ(LoRAFamily):
    """LoRA-fine-tuning-aware quantization: (alpha / r) B A starts as the nearest rank r matrix to W - Q.

    Paper: Li et al. 2023, arXiv:2310.08659, algorithm 1
    Differs: one round (T = 1), as in the peft library's replace_lora_weights_loftq, since the base is packed
    once for all adapters on it; by any quantizer. A and B are divided by the root of the scale, so that any
    alpha starts there: the library's start is that only where alpha equals the rank
    Raises: IncompatibleError on weights that are not packed, or whose weights from before nobody knows
    """

    name = "loftq"
    on_packed = OnPacked.required

    @dataclass(frozen=True, kw_only=True)
    class Config(LoRAConfig):
        """Rank, scale, dropout and targets."""

    @classmethod
    def check(cls, config: Any, cell: CellView, meta_model: nn.Module | None) -> Iterable[Problem]:
        yield from super().check(config, cell, meta_model)
        for stage in cell.stages:
            packing = packed_before(cell, stage) if tuned_by(cell, stage) is cls else None
            quantizer = None if packing is None else cell.choice("quantizer", stage=packing)
            if quantizer is not None and quantizer.method.trains:  # type: ignore[attr-defined]
                yield Problem(
                    where=f"{stage}: peft=loftq",
                    message=f"it starts from what packing lost, and quantizer={quantizer.method.name} trains "
                    "the weights as it packs them; use peft=lora, or a quantizer that does not train",
                )

    def library_config(self, model: nn.Module) -> Any:
        return self.lora_config(model)

    @torch.no_grad()
    def apply(self, model: nn.Module) -> nn.Module:
        if not any(isinstance(module, PackedLinear) for module in model.modules()):
            raise IncompatibleError(
                "peft=loftq starts from what packing lost, and no weight of this model is packed; put "
                "quantize before this stage, or use peft=lora or pissa"
            )
        if self.before_packing is None:
            raise IncompatibleError(
                "peft=loftq starts from what packing lost, and nobody knows the weights from before; pack "
                "them in the same cell (quantize before this stage), or use peft=lora"
            )
        dense, model = self.before_packing(), super().apply(model)
        for name, layer in adapted_layers(model):
            base = layer.get_base_layer()
            if not isinstance(base, PackedLinear):  # a head that is adapted has lost nothing
                continue
            lost = weight_matrix(dense.get_submodule(name)).to(base.dequantize()) - base.dequantize()
            down, up = factors(lost / layer.scaling["default"], layer.r["default"])
            layer.lora_A["default"].weight.copy_(down)
            layer.lora_B["default"].weight.copy_(up)
        return model


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [LoftQ]
