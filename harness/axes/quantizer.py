"""Quantizer: storing weights (and computing activations) in few bits."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.errors import ConfigError, EffectError, MissingExtraError
from harness.method import CellView, Method, Problem
from harness.ops.calibration import Calibration
from harness.ops.experts import fuse_experts, unfuse_experts, unknown_layout
from harness.ops.packed_linear import (
    PackedLinear,
    linear_layers,
    packed_shapes,
    replace_module,
    weight_matrix,
)
from harness.ops.rotation import unrotate


@dataclass(frozen=True, kw_only=True)
class PackedLayout:
    """Packed layers as another library stores them, for a directory that it reads."""

    config: dict[str, Any]
    """What config.json says under `quantization_config`."""
    tensors: Mapping[str, Mapping[str, Tensor]]
    """For each layer its tensors, by the last part of their names."""
    weight_of: Callable[[nn.Module], Tensor] | None = None
    """The weight (out x in) of a layer that the library has read, by the library's own unpacking, where its
    products round otherwise than ours; None compares what its layers compute."""


def unpacked(model: nn.Module) -> nn.Module:
    """The model with its packed layers as they were before, on their dequantized weights; in place."""
    with torch.device("meta"):
        plain = type(model)(model.config)  # type: ignore[call-arg]
    unfuse_experts(plain)
    for name, packed in list(model.named_modules()):
        if isinstance(packed, PackedLinear):
            layer = plain.get_submodule(name)
            weight = packed.dequantize()
            weight = weight.T.contiguous() if type(layer).__name__ == "Conv1D" else weight
            layer.weight = nn.Parameter(weight, requires_grad=False)
            layer.bias = packed.bias
            replace_module(model, name, layer)
    fuse_experts(model)
    unrotate(model)
    return model


def planned_bytes(model: nn.Module, quantizer: Quantizer | None, *, bits: int = 16) -> float:
    """Bytes that a model's weights take in memory: packed linear layers, everything else at `bits`.

    `model` may lie on the meta device; tied weights count once
    """
    total: float = sum(p.numel() * bits for p in model.parameters())
    if quantizer is not None:
        for count, rows, columns in packed_shapes(model).values():
            total += (quantizer.bits_per_weight(columns, rows) - bits) * count * rows * columns
    return total / 8


def packed_before(cell: CellView, stage: str) -> str | None:
    """The last stage before this one that packs the model's weights, if any does."""
    before = cell.stages[: cell.stages.index(stage)]
    packing = [
        name
        for name in before
        if "quantizer" in cell.reads(name) and cell.choice("quantizer", stage=name) is not None
    ]
    return packing[-1] if packing else None


class Quantizer(Method):
    """Replaces linear layers by packed ones, in place; embeddings, norms and head stay.

    Every replacement is a `PackedLinear` whose state dict holds the packed tensors.
    State: `facts` holds what `quantize` measured (errors by layer, say); it enters the record
    """

    axis = "quantizer"
    default = "none"
    optional = True
    needs_calibration: bool = False
    quantizes_activations: bool = False
    """Whether inputs are quantized too, at run time."""
    trains: bool = False
    """Whether the stage trains the model, with layers that round as they compute, before it is packed."""
    library: ClassVar[str | None] = None
    """Package without which it does not quantize, if any; `extra` carries it."""
    provides = frozenset({"packed_weights"})
    changes = frozenset({"weights", "calibration_sha256", "calibration_tokens"})
    after = frozenset({"weights"})
    """It packs what weights there are, whoever changed them before."""

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.facts: dict[str, Any] = {}

    @abstractmethod
    def quantize(self, model: nn.Module, calibration: Calibration | None) -> nn.Module:
        """The model with packed linear layers."""
        raise NotImplementedError

    def prepare(self, model: nn.Module) -> nn.Module:
        """The model with layers that round as they compute, in place; only called where `trains`."""
        raise NotImplementedError

    def needs_teacher(self) -> bool:
        """Whether `token_loss` reads what the model said before it was quantized."""
        return False

    def sequences(self, model: nn.Module, *, length: int, generator: torch.Generator) -> Tensor | None:
        """Training data that the model writes itself (N x length); None to train on training tokens."""
        return None

    def token_loss(self, logits_NV: Tensor, teacher_NV: Tensor | None, labels_N: Tensor) -> Tensor:
        """Summed loss of N tokens in nats: cross-entropy, unless the method learns from its teacher."""
        return F.cross_entropy(logits_NV, labels_N, reduction="sum")

    def empty(self, model: nn.Module) -> nn.Module:
        """The model with packed layers of the right shapes and no content, ready to load a state dict."""
        return self.swap(model, lambda name, layer: self.empty_layer(layer))

    def empty_layer(self, layer: nn.Module) -> PackedLinear:
        """A packed layer of a linear layer's shape, with its bias and no content; what `empty` puts there.

        Raises: ConfigError where the options do not fit the layer
        """
        raise NotImplementedError

    def calibration_tokens(self, in_features: int) -> int:
        """Calibration tokens without which a layer with so many inputs cannot be packed."""
        return 0

    def reads_tokens(self) -> bool:
        """Whether the stage must find text: to calibrate with, or to train on."""
        return self.needs_calibration

    @abstractmethod
    def bits_per_weight(self, in_features: int, out_features: int) -> float:
        """Bits stored for each weight of a layer, scales and zeros included, by formula."""
        raise NotImplementedError

    def layouts(self) -> Sequence[str]:
        """Layouts of other libraries that hold its packed layers as they are, without rounding again."""
        return ()

    def lay_out(
        self, layers: Mapping[str, PackedLinear], layout: str, *, skipped: Sequence[str]
    ) -> PackedLayout:
        """Packed layers in one of its layouts; `skipped` are the model's linear layers that are not packed.

        Raises: IncompatibleError where the layout cannot say what a layer computes
        """
        raise NotImplementedError

    def write_file(self, model: nn.Module, tokenizer: Any, directory: Path) -> Path | None:
        """Quantize a dense Hugging Face model into a file of the method's own programs; None without any.

        Raises: IncompatibleError where such a file cannot say what the model computes
        """
        return None

    @classmethod
    def unavailable(cls, config: Any) -> str | None:
        """Why its library cannot run on this machine, and what would help; None where it can."""
        try:
            cls.require_library()
        except MissingExtraError as error:
            return str(error)
        return None

    @classmethod
    def require_library(cls) -> None:
        """Refuse to go on without `library`.

        Raises: MissingExtraError
        """
        if cls.library is not None and find_spec(cls.library) is None:
            extra = cls.extra or cls.library
            raise MissingExtraError(package=cls.library, extra=extra, needed_by=f"quantizer={cls.name}")

    def layer_problems(self, in_features: int, out_features: int) -> str | None:
        """Why a layer of this size cannot be packed, and what would work; None where it can."""
        return None

    def fitting(self, layer: nn.Module) -> tuple[int, int, Tensor | None]:
        """Inputs, outputs and bias of a linear layer that the options fit.

        Raises: ConfigError where they do not
        """
        out_features, in_features = weight_matrix(layer).shape
        message = self.layer_problems(in_features, out_features)
        if message is not None:
            raise ConfigError(message)
        bias = layer.bias
        assert bias is None or isinstance(bias, Tensor)
        return in_features, out_features, bias

    @classmethod
    def check(cls, config: Any, cell: CellView, meta_model: nn.Module | None) -> Iterable[Problem]:
        """A library that cannot run here, and layers whose layout or size the options do not fit."""
        reason = cls.unavailable(config)
        if reason is not None:
            yield Problem(where=f"quantizer={cls.name}", message=reason)
        if meta_model is None:
            return
        layout = unknown_layout(meta_model)
        if layout is not None:
            yield Problem(where=f"quantizer={cls.name}", message=layout)
        method = cls(config)
        seen: set[tuple[int, int]] = set()
        for name, (_, out_features, in_features) in packed_shapes(meta_model).items():
            if (in_features, out_features) in seen:
                continue
            seen.add((in_features, out_features))
            message = method.layer_problems(in_features, out_features)
            if message is not None:
                yield Problem(where=f"quantizer={cls.name}", message=f"layer {name}: {message}")

    def targets(self, model: nn.Module) -> dict[str, nn.Module]:
        """The linear layers to pack; fused experts become linear layers first, in place.

        Raises: EffectError where the model has none; IncompatibleError for experts in an unknown layout
        """
        unfuse_experts(model)
        layers = linear_layers(model)
        if not layers:
            kinds = sorted({type(module).__name__ for module in model.modules()})
            raise EffectError(
                f"quantizer={self.name} found no unpacked linear layer; the model has {', '.join(kinds)}"
            )
        return layers

    def swap(self, model: nn.Module, make: Callable[[str, nn.Module], PackedLinear]) -> nn.Module:
        """Replace every linear layer by what `make(name, layer)` gives."""
        for name, layer in self.targets(model).items():
            replace_module(model, name, make(name, layer))
        return model
