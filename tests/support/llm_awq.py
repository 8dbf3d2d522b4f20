"""llm-awq's algorithm on a Hugging Face Llama, written anew from its paper and its two searches.

Lin et al. 2023, arXiv:2306.00978; auto_scale and auto_clip of https://github.com/mit-han-lab/llm-awq: a power
alpha for the layers that share an input, by the error of the module they feed, folded into what lies before
them; then a range for each group of weights, but not of queries and keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

ALPHAS, SHRINKS, SAMPLED = 20, 20, 512


def fake_quantized(w: Tensor, bits: int, group: int) -> Tensor:
    """Weights rounded to the min-max grid of each group, with a zero point."""
    grouped = w.reshape(-1, group)
    high, low = grouped.amax(1, keepdim=True), grouped.amin(1, keepdim=True)
    top = 2**bits - 1
    scale = (high - low).clamp(min=1e-5) / top
    zero = (-torch.round(low / scale)).clamp(0, top)
    return ((torch.round(grouped / scale) + zero).clamp(0, top) - zero).mul(scale).reshape(w.shape)


def searched_scale(
    x: Tensor, layers: Sequence[nn.Linear], output: Callable[[], Tensor], bits: int, group: int
) -> Tensor:
    """The factor of each input with least error of `output`, which runs the layers."""
    mean = x.abs().flatten(0, -2).mean(0)
    exact = output()
    kept = [layer.weight.data.clone() for layer in layers]
    best: tuple[float, Tensor] | None = None
    for step in range(ALPHAS):
        scale = mean.pow(step / ALPHAS).clamp(min=1e-4)
        scale = scale / (scale.max() * scale.min()).sqrt()
        for layer, weight in zip(layers, kept, strict=True):
            layer.weight.data = fake_quantized(weight * scale, bits, group) / scale
        error = float((output() - exact).square().mean())
        if best is None or error < best[0]:
            best = error, scale
    for layer, weight in zip(layers, kept, strict=True):
        layer.weight.data = weight
    assert best is not None
    return best[1]


def clipped(w: Tensor, x: Tensor, bits: int, group: int) -> Tensor:
    """Weights within the range of each group that errs least on a sample of the inputs."""
    rows = x.flatten(0, -2)
    rows = rows[:: max(1, len(rows) // SAMPLED)].unflatten(-1, (-1, group))  # n x groups x size
    grouped = w.unflatten(-1, (-1, group))
    largest = grouped.abs().amax(-1, keepdim=True)
    exact = torch.einsum("ngi,ogi->ogn", rows, grouped)
    best, least = largest.clone(), torch.full_like(largest, torch.inf)
    for step in range(SHRINKS // 2):
        reach = largest * (1 - step / SHRINKS)
        inside = torch.maximum(torch.minimum(grouped, reach), -reach)
        rounded = fake_quantized(inside, bits, group)
        error = (torch.einsum("ngi,ogi->ogn", rows, rounded) - exact).square().mean(-1, keepdim=True)
        better = error < least
        best, least = torch.where(better, reach, best), torch.where(better, error, least)
    return torch.maximum(torch.minimum(grouped, best), -best).flatten(-2)


class Block:
    """One decoder layer, what its linear layers read, and what of it feeds what."""

    def __init__(self, block: Any, hidden: Tensor, options: dict[str, Any], bits: int, group: int) -> None:
        self.block, self.options, self.bits, self.group = block, options, bits, group
        parts = (("self_attn", block.self_attn), ("mlp", block.mlp))
        children = [(f"{part}.{n}", m) for part, module in parts for n, m in module.named_children()]
        self.layers = {name: m for name, m in children if isinstance(m, nn.Linear)}
        self.reads: dict[str, Tensor] = {}
        hooks = [
            layer.register_forward_pre_hook(
                lambda module, inputs, name=name: self.reads.update({name: inputs[0]})
            )
            for name, layer in self.layers.items()
        ]
        self.output = block(hidden, **options)
        for hook in hooks:
            hook.remove()

    def fold(self, before: Any, names: Sequence[str], module: Callable[[Tensor], Tensor]) -> None:
        """Scale the inputs of layers that share one, by the error of the module that reads it."""
        x, layers = self.reads[names[0]], [self.layers[n] for n in names]
        scale = searched_scale(x, layers, lambda: module(x), self.bits, self.group)
        weight = before.weight
        weight.data = weight.data / (scale[:, None] if weight.ndim == 2 else scale)
        for name in names:
            self.layers[name].weight.data *= scale
            self.reads[name] = self.reads[name] / scale

    def round(self) -> None:
        """Search scales, then ranges, then round."""
        block, attention, mlp = self.block, self.block.self_attn, self.block.mlp
        heads = [f"self_attn.{n}_proj" for n in "qkv"]
        fold = self.fold
        fold(block.input_layernorm, heads, lambda x: attention(x, **self.options)[0])
        if attention.v_proj.weight.shape == attention.o_proj.weight.shape:
            fold(attention.v_proj, ["self_attn.o_proj"], attention.o_proj)
        fold(block.post_attention_layernorm, ["mlp.gate_proj", "mlp.up_proj"], mlp)
        fold(mlp.up_proj, ["mlp.down_proj"], mlp.down_proj)
        for name, layer in self.layers.items():
            if not name.endswith(("q_proj", "k_proj")):
                layer.weight.data = clipped(layer.weight.data, self.reads[name], self.bits, self.group)
            layer.weight.data = fake_quantized(layer.weight.data, self.bits, self.group)


@torch.no_grad()
def llm_awq(model: Any, batches_BT: Sequence[Tensor], *, bits: int, group: int) -> Any:
    """The model with its weights as llm-awq would round them, in place."""
    inner = model.model
    ids = torch.cat(list(batches_BT))
    hidden = inner.embed_tokens(ids)
    rotary = inner.rotary_emb(hidden, torch.arange(ids.shape[1])[None])
    for layer in inner.layers:
        block = Block(layer, hidden, {"position_embeddings": rotary, "attention_mask": None}, bits, group)
        block.round()
        hidden = block.output
    return model
