"""Quantization-aware training: weights learn with their own rounding in the forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from harness import Calibration, ConfigError, Method, hookimpl

from ._grid import UniformConfig
from ._self_generated import write_sequences
from ._straight_through import StraightThrough
from ._uniform import UniformQuantizer


class Data(StrEnum):
    """What the model is trained on."""

    generated = "generated"
    tokens = "tokens"


class QuantizationAwareTraining(UniformQuantizer):
    """LLM-QAT: straight-through rounding, distilled from the full model on data that it writes itself.

    Paper: Liu et al. 2023, arXiv:2305.17888, section 2
    State: weights are in full precision and fake-quantized while it trains; what is stored is packed
    Differs: weights only; activations and the key/value cache stay in 16 bits; the symmetric grid has all
    2^b levels, where the paper's spares one
    """

    name = "qat"
    trains = True

    @dataclass(frozen=True, kw_only=True)
    class Config(UniformConfig):
        symmetric: bool = True
        """Whether the grid is centred on zero; else it spans the weights, and each scale has a zero point."""
        data: Data = Data.generated
        """generated: sequences that the model writes before it is quantized; tokens: training tokens."""
        distill: bool = True
        """Learn the full-precision model's next-token distribution; else the next token."""
        num_sequences: int = 64
        """Sequences the model writes."""
        greedy_tokens: int = 3
        """Tokens of each that are the likeliest ones, after a random first one; the rest are sampled."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.num_sequences < 1:
                raise ConfigError(f"quantizer.num_sequences={self.num_sequences} must be at least 1")
            if self.greedy_tokens < 0:
                raise ConfigError(f"quantizer.greedy_tokens={self.greedy_tokens} must not be negative")

    config: Config

    def prepare(self, model: nn.Module) -> nn.Module:
        for layer in self.targets(model).values():
            self.fitting(layer)
            parametrize.register_parametrization(layer, "weight", StraightThrough(layer, self.config))
        return model

    def needs_teacher(self) -> bool:
        return self.config.distill

    def reads_tokens(self) -> bool:
        return self.config.data is Data.tokens

    def sequences(self, model: nn.Module, *, length: int, generator: torch.Generator) -> Tensor | None:
        if self.config.data is Data.tokens:
            return None
        return write_sequences(
            model,
            count=self.config.num_sequences,
            length=length,
            greedy=self.config.greedy_tokens,
            generator=generator,
        )

    def token_loss(self, logits_NV: Tensor, teacher_NV: Tensor | None, labels_N: Tensor) -> Tensor:
        if teacher_NV is None:
            return super().token_loss(logits_NV, None, labels_N)
        return F.cross_entropy(logits_NV, teacher_NV.softmax(-1), reduction="sum")  # eq. 4

    def quantize(self, model: nn.Module, calibration: Calibration | None) -> nn.Module:
        for module in list(model.modules()):
            if parametrize.is_parametrized(module, "weight"):
                parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
        return self.swap(model, lambda name, layer: self.round(layer))


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [QuantizationAwareTraining]
