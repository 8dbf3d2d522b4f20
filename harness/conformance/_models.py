"""Tiny models for the suites of the model axes, and a cache that needs no other library.

Shapes: B = 2 rows, T = 16 tokens, V = 32
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from harness.axes import MODEL_AXES
from harness.axes.architecture import Architecture
from harness.axes.attention import Attention, CacheKind
from harness.axes.norm import Norm
from harness.method import Choice, Method
from harness.model.transformer import LanguageModel
from harness.model.weights import initialize
from harness.ops.paged_cache import PagedCache
from harness.registry.known import registry
from harness.spec import ModelSpec

SPEC = ModelSpec(
    vocab_size=32,
    dim=32,
    num_layers=2,
    num_heads=4,
    head_dim=16,
    ffn_dim=48,
    max_length=32,
    bias=True,
    init_std=0.2,
)


def default_choice(axis: str) -> Choice:
    """The method an axis has when nothing is said."""
    name = registry().axes[axis].default
    assert isinstance(name, str)
    method = registry().get(axis, name)
    return Choice(axis=axis, method=method, config=method.Config())


def model_of(method: type[Method], *, dtype: torch.dtype = torch.float64, **shape: Any) -> LanguageModel:
    """A model that differs from the default in one method, with large random weights."""
    return pair_of((method,), dtype=dtype, **shape)


def pair_of(
    methods: Iterable[type[Method]], *, dtype: torch.dtype = torch.float64, **shape: Any
) -> LanguageModel:
    """A model that differs from the default in these methods, with large random weights.

    Raises: ConfigError, IncompatibleError where they do not fit
    """
    choices = {axis: default_choice(axis) for axis in MODEL_AXES}
    spec = dataclasses.replace(SPEC, **shape)
    stated = set()
    for method in methods:
        config = method.small() if issubclass(method, Attention) else method.Config()
        choices[method.axis] = Choice(axis=method.axis, method=method, config=config)
        stated.add(method.axis)
        if issubclass(method, Architecture) and method.has_encoder():
            spec = dataclasses.replace(spec, num_encoder_layers=2)
        if issubclass(method, Norm) and method.modify_spec(config, spec).residual_scale != 1:
            post = registry().get("norm_position", "post")
            if "norm_position" not in stated:
                choices["norm_position"] = Choice(axis="norm_position", method=post, config=post.Config())
    for choice in choices.values():
        spec = choice.method.modify_spec(choice.config, spec)
    model = LanguageModel(spec, choices)
    initialize(model, spec, seed=0)
    with torch.no_grad():  # Biases and norms move too, or a bug in them would not show.
        generator = torch.Generator().manual_seed(1)
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return model.to(dtype).eval()


def hugging_face(model: LanguageModel) -> Any:
    """The same model as a Hugging Face one, with the same weights."""
    from harness.model.choices import to_plain
    from harness.model.hf import HarnessConfig, HarnessForCausalLM

    config = HarnessConfig.of(model.spec, to_plain(model.choices))
    found = HarnessForCausalLM(config, model.choices)
    found.load_state_dict(model.state_dict())
    return found.to(next(model.parameters()).dtype).eval()


def tokens(rows: int = 2, length: int = 16, *, seed: int = 0) -> Tensor:
    """Random token ids.

    Shapes: -> BT
    """
    return torch.randint(0, SPEC.vocab_size, (rows, length), generator=torch.Generator().manual_seed(seed))


def inputs_for(model: LanguageModel, rows: int = 2) -> dict[str, Tensor]:
    """What the architecture reads besides the tokens."""
    inputs = {}
    if model.model.architecture.has_encoder():
        inputs["encoder_input_ids"] = tokens(rows, 8, seed=5)
    if model.model.architecture.uses_prefix():
        inputs["prefix_length"] = torch.full((rows,), 5)
    return inputs


def kept_values(layer: nn.Module, *inputs: Any, **options: Any) -> float:
    """Numbers that a layer keeps for the backward pass of a call, for each token of its first input, which
    is counted and requires a gradient; weights are not counted, nor masks that all rows and layers share.

    Shapes: the first input BTD
    """
    weights = {parameter.untyped_storage().data_ptr() for parameter in layer.parameters()}
    found: dict[int, tuple[float, Tensor]] = {}

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        shared = x.dim() == 4 and len(x) == 1
        if x.is_floating_point() and not shared and storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage.nbytes() / x.itemsize, x
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        layer(*inputs, **options)
    tokens: int = inputs[0][..., 0].numel()
    return sum(count for count, _ in found.values()) / tokens


class GrowingCache:
    """Keys and values of one layer, appended."""

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        self.keys = k if self.keys is None else torch.cat((self.keys, k), dim=2)
        self.values = v if self.values is None else torch.cat((self.values, v), dim=2)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return 0 if self.keys is None else self.keys.shape[2]


class LayeredCache:
    """The cache of a whole model, of the kind that its attention keeps."""

    def __init__(self, model: LanguageModel) -> None:
        self.layers: list[Any] = []
        for layer in model.model.layers:
            attention = layer.self_attn
            assert isinstance(attention, Attention)
            if attention.config.cache is CacheKind.paged:
                self.layers.append(PagedCache(block_size=4))
            else:
                self.layers.append(attention.new_cache() or GrowingCache())

    def update(self, k: Tensor, v: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        k, v = self.layers[layer].update(k, v)
        return k, v

    def get_seq_length(self) -> int:
        return int(self.layers[0].get_seq_length())
