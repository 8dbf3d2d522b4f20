"""Runs under the interpreter of auto_gptq: its own code, on a CPU.

The library asks for CUDA in four places that compute nothing: they are answered here, so that all of its
quantizing and packing runs. usage: python on_cpu.py layer IN.pt OUT.pt | model WORKER DIRECTORY OUT
"""

from __future__ import annotations

import runpy
import sys
from typing import Any

import torch

torch.cuda.is_available = lambda: True
torch.cuda.synchronize = lambda device=None: None
torch.cuda.empty_cache = lambda: None


def layer(weight: torch.Tensor, x: torch.Tensor, options: dict[str, Any]) -> dict[str, torch.Tensor]:
    """One linear layer through the library's GPTQ, its packing, and the product it computes."""
    from auto_gptq.nn_modules.qlinear.qlinear_cuda_old import QuantLinear
    from auto_gptq.quantization.gptq import GPTQ

    bits, group = options["bits"], options["group_size"]
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight.data = weight.clone()
    method = GPTQ(linear)
    method.quantizer.configure(bits, perchannel=True, sym=options["symmetric"], mse=False)
    method.add_batch(x[None], None)
    scale, zero, g_idx = method.fasterquant(
        # The library sets a group's grid from weights that its block has not updated: one group a block.
        blocksize=128 if group == -1 else group,
        percdamp=options["damping"],
        group_size=group,
        actorder=options["act_order"],
        static_groups=options["static_groups"],
    )
    packed = QuantLinear(bits, group, *weight.T.shape, bias=False, weight_dtype=torch.float32)
    packed.pack(linear, scale.clone(), zero.clone(), g_idx)
    found = dict(packed.state_dict())
    return found | {"values": linear.weight.data, "scale": scale, "zero": zero, "product": packed(x[:5])}


def main() -> None:
    import auto_gptq.modeling._base as base

    base.CUDA_0 = torch.device("cpu")
    if sys.argv[1] == "layer":
        given = torch.load(sys.argv[2])
        torch.save([layer(*case) for case in given], sys.argv[3])
        return
    import auto_gptq.modeling._utils as utils

    utils.CUDA_0 = torch.device("cpu")
    sys.argv = sys.argv[2:]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    with torch.inference_mode():
        main()
