"""Layers on uniform grids as other libraries store them: gptqmodel, AWQ, compressed-tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from harness import IncompatibleError, PackedLayout, PackedLinear, unpack_codes

from ._gptq_format import WORD, pack_words
from ._grid import Granularity, UniformConfig
from ._uniform import UniformLinear

GPTQ, AWQ, COMPRESSED = "gptq", "awq", "compressed-tensors"
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of eight neighbouring outputs lies in each nibble of a word, the lowest first."""


def lay_out(
    layers: Mapping[str, PackedLinear], config: UniformConfig, layout: str, *, skipped: Sequence[str]
) -> PackedLayout:
    """Layers on one kind of grid in a layout.

    Raises: IncompatibleError where it cannot say what a layer computes
    """
    found = {name: Codes(name, layer, layout) for name, layer in layers.items()}
    size = config.group_size if config.granularity is Granularity.group else -1
    if layout == COMPRESSED:
        said = compressed_config(config, skipped)
        tensors = {name: compressed(codes, config) for name, codes in found.items()}
        return PackedLayout(config=said, tensors=tensors)
    if layout == AWQ:
        said = {"quant_method": AWQ, "version": "gemm", "bits": 4, "group_size": size, "zero_point": True}
        said["modules_to_not_convert"] = list(skipped)
        return PackedLayout(config=said, tensors={n: awq(c) for n, c in found.items()})
    # The first format stores zeros less one, which zero itself does not survive in every reader: gptqmodel
    # opens it for symmetric grids alone.
    less_one = config.symmetric
    said = {"quant_method": GPTQ, "bits": config.bits, "group_size": size, "desc_act": False}
    said |= {"sym": config.symmetric, "lm_head": False, "pack_dtype": "int32"}
    said["checkpoint_format"] = "gptq" if less_one else "gptq_v2"
    return PackedLayout(config=said, tensors={n: gptq(c, less_one=less_one) for n, c in found.items()})


class Codes:
    """What a layer stores, unpacked.

    Shapes: codes out x in, scales and zeros out x groups; codes and zeros are integers from 0 to 2^bits - 1
    Raises: IncompatibleError for a layer that holds more than that
    """

    def __init__(self, name: str, layer: PackedLinear, layout: str) -> None:
        assert isinstance(layer, UniformLinear)
        self.where = f"layer {name}: the layout {layout}"
        factors = getattr(layer, "input_scale", None)
        if factors is not None and not bool((factors == 1).all()):
            raise self.refusal(
                "has no place for the factors of inputs that AWQ keeps with each layer; quantize with "
                "quantizer.fold=true, which folds them into what lies before, or export it unpacked"
            )
        rows = (layer.out_features, layer.scale.shape[-1])
        self.bits = layer.bits
        self.codes = unpack_codes(layer.codes, layer.bits, layer.in_features).long()
        self.scales, zeros = layer.scales().expand(rows), layer.zeros().expand(rows)
        if not bool((zeros == zeros.round()).all()):
            raise self.refusal("has whole zero points, and these lie between codes; export it unpacked")
        self.zeros = zeros.long()

    def refusal(self, message: str) -> IncompatibleError:
        """An error that names the layer and the layout."""
        return IncompatibleError(f"{self.where} {message}")

    def halves(self) -> Tensor:
        """The scales in float16, groups x out.

        Raises: IncompatibleError where that is not what they are
        """
        half = self.scales.half()
        if not torch.equal(half.float(), self.scales):
            raise self.refusal(
                f"keeps scales in float16, and this has one of {float(self.scales.min()):.3g}, which "
                "float16 does not hold in full; use compressed-tensors, or quantizer.scale_dtype=float16"
            )
        return half.T.contiguous()

    def require(self, *, bits: tuple[int, ...], inputs: int, outputs: int) -> None:
        """Refuse other widths and sizes than the layout packs."""
        if self.bits not in bits:
            raise self.refusal(f"has {' or '.join(map(str, bits))} bits, and this has {self.bits}")
        out_features, in_features = self.codes.shape
        if in_features % inputs or out_features % outputs:
            raise self.refusal(
                f"packs multiples of {inputs} inputs and {outputs} outputs, and this has {in_features} and "
                f"{out_features}; use compressed-tensors"
            )


def gptq(found: Codes, *, less_one: bool) -> dict[str, Tensor]:
    """As auto_gptq and gptqmodel store a layer: words of 32 bits along the inputs, zeros along outputs."""
    found.require(bits=(2, 3, 4, 8), inputs=WORD, outputs=WORD)
    in_features, groups = found.codes.shape[1], found.scales.shape[1]
    return {
        "qweight": pack_words(found.codes.T, found.bits),
        "qzeros": pack_words(found.zeros - int(less_one), found.bits).T.contiguous(),
        "scales": found.halves(),
        "g_idx": torch.arange(in_features, dtype=torch.int32) // (in_features // groups),
    }


def awq(found: Codes) -> dict[str, Tensor]:
    """As AutoAWQ's matrix products read a layer: eight outputs a word, in their own order."""
    found.require(bits=(4,), inputs=1, outputs=len(AWQ_ORDER))
    return {
        "qweight": nibbles(found.codes.T),
        "qzeros": nibbles(found.zeros.T),
        "scales": found.halves(),
    }


def nibbles(values: Tensor) -> Tensor:
    """Eight 4-bit values of a row in one word.

    Shapes: (n, m) integers -> (n, m / 8) int32
    """
    parts = values.unflatten(-1, (-1, len(AWQ_ORDER)))[..., list(AWQ_ORDER)]
    words: Tensor = (parts << (4 * torch.arange(len(AWQ_ORDER)))).sum(-1)
    return torch.where(words >= 2 ** (WORD - 1), words - 2**WORD, words).int().contiguous()


def compressed_config(config: UniformConfig, skipped: Sequence[str]) -> dict[str, Any]:
    """The scheme of compressed-tensors' format pack-quantized."""
    grouped = config.granularity is Granularity.group
    weights = {
        "num_bits": config.bits,
        "type": "int",
        "symmetric": config.symmetric,
        "strategy": "group" if grouped else "channel",
        "group_size": config.group_size if grouped else None,
        "dynamic": False,
    }
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None, "output_activations": None}
    # transformers 5 makes room for zero points as if they were not packed, so it must unpack what it reads.
    reading = {} if config.symmetric else {"dequantize": True}
    return reading | {
        "quant_method": COMPRESSED,
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": list(skipped),
    }


def compressed(found: Codes, config: UniformConfig) -> dict[str, Tensor]:
    """Codes of each row as one stream of bits; scales in float32, in which the layer computes."""
    width = -(-found.codes.shape[1] * found.bits // WORD)
    tensors = {
        "weight_packed": pack_words(found.codes.T, found.bits)[:width].T.contiguous(),
        "weight_scale": found.scales.contiguous(),
        "weight_shape": torch.tensor(found.codes.shape),
    }
    if not config.symmetric:
        height = -(-found.codes.shape[0] * found.bits // WORD)
        tensors["weight_zero_point"] = pack_words(found.zeros, found.bits)[:height].contiguous()
    return tensors
