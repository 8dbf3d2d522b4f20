"""Initial weights: one random stream per parameter name, so that models share what they have in common."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from harness.rng import Purpose, stream_seed
from harness.spec import ModelSpec

_OUT = ("o_proj", "down_proj")
_GAIN = ("v_proj", "o_proj", "up_proj", "gate_proj", "down_proj")


class unset(TorchFunctionMode):  # noqa: N801 - a context manager
    """Leaves parameters as they are allocated: where only shapes are asked, values are not drawn.

    The first draw on a meta device loads torch's compiler, which costs 1.6 s of every plan.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == nn.init.__name__:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


@torch.no_grad()
def initialize(model: nn.Module, spec: ModelSpec, *, seed: int) -> None:
    """Normal weights of standard deviation `init_std`, zero biases; other parameters stay as constructed.

    Output projections start at init_std / sqrt(2 L), so that the residual stream keeps its size;
    under DeepNorm (residual_scale != 1) value, output and feed-forward weights are multiplied by `init_gain`.

    Paper: Radford et al. 2019 (GPT-2), section 2.3; Wang et al. 2022, arXiv:2203.00555, section 2.2
    State: parameter `p` is drawn from the stream hash(seed, p), whatever else the model holds
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv1d):
            _initialize_convolution(name, module, seed)
        if not isinstance(module, nn.Linear | nn.Embedding):
            continue
        if (bias := getattr(module, "bias", None)) is not None:
            bias.zero_()
        module.weight.normal_(
            0.0, spec.init_std * gain(name, spec), generator=_generator(name, module.weight.device, seed)
        )


def _initialize_convolution(name: str, module: nn.Conv1d, seed: int) -> None:
    """Weights and biases within one over the root of the inputs of a channel, as torch draws them."""
    bound = (module.weight.shape[1] * module.weight.shape[2]) ** -0.5
    generator = _generator(name, module.weight.device, seed)
    for tensor in (module.weight, module.bias):
        if tensor is not None:
            tensor.uniform_(-bound, bound, generator=generator)


def gain(name: str, spec: ModelSpec) -> float:
    """Factor on init_std for the layer called `name`."""
    last = name.rpartition(".")[2]
    if spec.residual_scale != 1:
        beta = spec.encoder_init_gain if ".encoder." in f".{name}" else spec.init_gain
        return beta if last in _GAIN else 1.0
    depth = 2 * max(spec.num_layers, 1)
    return spec.init_gain / math.sqrt(depth) if last in _OUT else 1.0


def _generator(name: str, device: torch.device, seed: int) -> torch.Generator | None:
    if device.type == "meta":
        return None
    name = "model.embed_tokens" if name == "lm_head" else name
    return torch.Generator(device).manual_seed(stream_seed(seed=seed, stage=name, purpose=Purpose.init))
