"""What fits into GPUs: batches of full and LoRA tuning, and bytes of weights for inference, by formulas.

Units: bytes
"""

from __future__ import annotations

import math

from harness.plan.estimate import Size

ADAMW_STATE = 16
"""Bytes a trained weight costs in mixed precision: weight 2, gradient 2, and in fp32 a copy 4, two moments 8
(Rajbhandari et al. 2020, arXiv:1910.02054, section 3.1); in plain fp32 they are 4 + 4 + 8."""
USABLE = 0.97
"""Share of a GPU's memory that tensors can use, beside the CUDA context and fragments."""
GATHERED_LAYERS = 2
"""Layers whose weights ZeRO-3 holds whole at once: the one computed and the one fetched ahead."""


def zero3_bytes(size: Size, *, gpus: int, batch: int, sequence_length: int) -> float:
    """Peak bytes on each GPU of full tuning with ZeRO-3, bf16 and recomputation.

    The states of all weights divided over the GPUs, the layers gathered at once, activations and logits
    """
    gathered = 2 * (GATHERED_LAYERS * size.layer_weights + size.vocab_size * size.dim)
    kept = size.activations(sequence_length, element=2, flash=False, recompute=True)
    return ADAMW_STATE * size.parameters / gpus + gathered + kept * batch * sequence_length


def zero3_batch(size: Size, *, gpus: int, memory: float, sequence_length: int) -> int:
    """The largest batch of full-length sequences on each GPU of full tuning with ZeRO-3."""
    fixed = zero3_bytes(size, gpus=gpus, batch=0, sequence_length=sequence_length)
    each = zero3_bytes(size, gpus=gpus, batch=1, sequence_length=sequence_length) - fixed
    return max(0, math.floor((memory * USABLE - fixed) / each))


def weight_bytes(size: Size, *, bits: int) -> float:
    """Bytes of the weights for inference: linear layers in `bits`, the rest in 16 bits; int8 has one fp32
    scale a row, 4 bits one fp32 scale for every 64 weights."""
    rest = 2 * (size.parameters - size.linear_weights)
    if bits == 16:
        return 2 * size.linear_weights + rest
    scales = size.linear_weights / (64 if bits == 4 else size.dim) * 4
    return size.linear_weights * bits / 8 + scales + rest


def lora_batch(size: Size, *, rank: int, memory: float, sequence_length: int, recompute: bool) -> int:
    """The largest batch of full-length sequences that LoRA over int8 weights takes on one GPU.

    Adapters of that rank on all linear layers in fp32 with their optimizer states; activations in 16 bits
    """
    ffn = (3 if size.gated else 2) * (size.dim + size.ffn_dim)
    adapters = size.num_layers * rank * (4 * (size.dim + size.width) + ffn)
    free = memory * USABLE - weight_bytes(size, bits=8) - ADAMW_STATE * adapters
    kept = size.activations(sequence_length, element=2, flash=False, recompute=recompute)
    return max(0, math.floor(free / (kept * sequence_length)))


def least_gpus(needed: float, *, memory: float, power_of_two: bool = False) -> int:
    """The least number of GPUs whose memory holds `needed` bytes together."""
    number = max(1, math.ceil(needed / memory))
    return 1 << (number - 1).bit_length() if power_of_two else number
