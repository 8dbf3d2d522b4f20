"""A tiny Hugging Face Llama and a tiny transformer of ours, on which suites of adaptation methods run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from harness.ops.packed_linear import PackedLinear, linear_layers, replace_module

VOCABULARY = 64


def causal_model(seed: int = 0, *, dim: int = 32, layers: int = 2, bias: bool = False) -> Any:
    """A Llama with random weights (and biases) of usual size; equal seeds give equal models."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=dim,
        intermediate_size=2 * dim,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=128,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        attention_bias=bias,
        mlp_bias=bias,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 2:
                    parameter.normal_(0, 0.15)
            for name, parameter in model.named_parameters():
                if name.endswith(".bias"):
                    parameter.normal_(0, 0.15)
    return model


class Rounded(PackedLinear):
    """A packed layer that needs no quantizer: 4-bit codes of each row, its largest weight at the last."""

    codes: Tensor
    scale: Tensor

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias)
        weight = layer.weight.detach()
        scale = weight.abs().amax(-1, keepdim=True) / 7
        self.register_buffer("scale", scale)
        self.register_buffer("codes", torch.round(weight / scale).to(torch.int8))

    def dequantize(self) -> Tensor:
        """code * scale, float32."""
        return self.codes.float() * self.scale


def packed(model: Any) -> Any:
    """The model with its linear layers packed, the head apart; in place."""
    for name, layer in linear_layers(model).items():
        assert isinstance(layer, nn.Linear)
        replace_module(model, name, Rounded(layer))
    return model


def own_model(seed: int = 0) -> Any:
    """Our transformer with the default methods and random weights of usual size."""
    from harness.axes import MODEL_AXES
    from harness.conformance._models import default_choice
    from harness.model import build
    from harness.spec import ModelSpec

    spec = ModelSpec(
        vocab_size=VOCABULARY,
        dim=32,
        num_layers=2,
        num_heads=4,
        head_dim=8,
        ffn_dim=64,
        max_length=128,
        init_std=0.15,
    )
    return build(spec, {axis: default_choice(axis) for axis in MODEL_AXES}, seed=seed).eval()


def tokens(seed: int = 0, *, batch: int = 4, length: int = 24) -> Tensor:
    """Random ids without special ones (B x T)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCABULARY, (batch, length), generator=generator)


@torch.no_grad()
def logits(model: nn.Module, ids_BT: Tensor) -> Tensor:
    """Logits in evaluation mode (B x T x V)."""
    model.eval()
    found: Tensor = model(input_ids=ids_BT, use_cache=False).logits
    return found
