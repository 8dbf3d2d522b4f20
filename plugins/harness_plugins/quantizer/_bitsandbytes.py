"""Layers as bitsandbytes stores them: transformers reads them with a BitsAndBytesConfig."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from harness import IncompatibleError

from ._codebook import NESTED_BLOCK, CodebookConfig, CodebookLinear, dynamic_levels
from ._int8 import Int8Linear

BITSANDBYTES = "bitsandbytes"


def common(skipped: Sequence[str]) -> dict[str, Any]:
    """What every config says."""
    return {"quant_method": BITSANDBYTES, "llm_int8_skip_modules": list(skipped)}


def four_bit_config(config: CodebookConfig, codebook: str, skipped: Sequence[str]) -> dict[str, Any]:
    """The config of NF4 or FP4; products are computed in float32, as here."""
    return common(skipped) | {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": codebook,
        "bnb_4bit_use_double_quant": config.double_quantization,
        "bnb_4bit_compute_dtype": "float32",
        "bnb_4bit_quant_storage": "uint8",
    }


def four_bit(name: str, layer: CodebookLinear) -> dict[str, Tensor]:
    """Codes, and the quantization state beside them in the library's own form.

    Raises: IncompatibleError for rows that are no whole blocks
    """
    from bitsandbytes.functional import QuantState

    if layer.in_features % layer.block_size:
        raise IncompatibleError(
            f"layer {name}: quantizer.block_size={layer.block_size} does not divide its {layer.in_features} "
            "inputs, and bitsandbytes' kernels for a CPU unpack such rows wrongly; export it unpacked"
        )
    nested: dict[str, Any] = {}
    if layer.nested_scale is not None:
        assert layer.offset is not None
        inner = QuantState(
            absmax=layer.nested_scale,
            code=dynamic_levels(),
            blocksize=NESTED_BLOCK,
            dtype=torch.float32,
        )
        nested = {"offset": layer.offset[0], "state2": inner}
    state = QuantState(
        absmax=layer.absmax,
        shape=torch.Size((layer.out_features, layer.in_features)),
        code=layer.levels,
        blocksize=layer.block_size,
        quant_type=layer.codebook,
        dtype=torch.float32,
        **nested,
    )
    beside = {f"weight.{part}": value.clone() for part, value in state.as_dict(packed=True).items()}
    return {"weight": layer.codes.view(-1, 1), **beside}


def four_bit_weight(layer: Any) -> Tensor:
    """The weight of a layer of the library."""
    from bitsandbytes.functional import dequantize_4bit

    weight: Tensor = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    return weight


def eight_bit_weight(layer: Any) -> Tensor:
    """The weight of a layer of the library."""
    from bitsandbytes.functional import int8_vectorwise_dequant

    weight: Tensor = int8_vectorwise_dequant(layer.weight.CB, layer.weight.SCB)
    return weight


def eight_bit(layer: Int8Linear) -> dict[str, Tensor]:
    """Codes row by row, and the largest weight of each row."""
    row_major = torch.zeros((), dtype=torch.uint8)
    return {"weight": layer.codes, "SCB": layer.scale * 127, "weight_format": row_major}
