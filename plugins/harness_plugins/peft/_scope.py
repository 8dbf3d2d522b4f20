"""Which layers an adapter stands on, and what else is trained beside it: the options that methods share."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

from torch import nn

from harness import (
    ConfigError,
    IncompatibleError,
    PackedLinear,
    Peft,
    block_names,
    linear_layers,
    match_modules,
    packed_shapes,
    unknown_layout,
    weight_matrix,
)


@dataclass(frozen=True, kw_only=True)
class Experts:
    """The matrices of a mixture's experts that lie in one parameter."""

    count: int
    in_features: int
    out_features: int


Layer = nn.Module | Experts
"""What an adapter stands on: a module, or a parameter that holds experts."""

READ_BY_KERNELS = {
    "mamba": ("dt_proj", "out_proj"),
    "falcon_mamba": ("dt_proj", "out_proj"),
    "jamba": ("dt_proj",),
    "mamba2": ("out_proj",),
    "falcon_h1": ("out_proj",),
    "nemotron_h": ("out_proj",),
}
"""Layers of state-space models, by model type, that are not called: kernels read their weights as tensors,
past any adapter. The peft library refuses most of them too."""


@dataclass(frozen=True, kw_only=True)
class LinearConfig(Peft.Config):
    """Options of adapters on linear layers."""

    target_modules: list[str] = field(default_factory=list)
    """Names of the layers to adapt, e.g. [q_proj, v_proj]; empty for all linear layers but the output head,
    which is adapted where it is named (lm_head); lora, rslora and dora take the input embeddings too,
    and lora, rslora and lora_plus the experts that a mixture keeps in one parameter (down_proj, say)."""
    layers_to_transform: list[int] = field(default_factory=list)
    """Blocks whose layers are adapted, counted from 0; empty for all."""
    modules_to_save: list[str] = field(default_factory=list)
    """Names of modules that are trained whole and saved with the adapter, e.g. [lm_head, norm]."""

    def __post_init__(self) -> None:
        for name in ("layers_to_transform", "modules_to_save"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ConfigError(f"peft.{name}={list(values)} names something twice")


@dataclass(frozen=True, kw_only=True)
class AdapterConfig(LinearConfig):
    """Options of adapters beside which biases can be trained."""

    only: ClassVar[str] = "lora_only"
    """What the peft library calls training the biases of adapted layers alone."""
    bias: str = "none"
    """Which biases are trained too: none, all, or lora_only (vera_only, oft_only): of adapted layers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bias not in ("none", "all", self.only):
            raise ConfigError(f"peft.bias={self.bias} must be none, all or {self.only}")


@dataclass(frozen=True, kw_only=True)
class DropoutConfig(AdapterConfig):
    """Options of adapters that drop something in a training step."""

    dropout: float = 0.0
    """Probability of dropping an input of the adapter."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"peft.dropout={self.dropout} must be in [0, 1)")


def linear_targets(
    model: nn.Module, config: LinearConfig, *, embeddings: bool = False, experts: bool = False
) -> dict[str, Layer]:
    """The layers to adapt by name: linear ones, packed ones included, where asked for those that fused
    experts hold, and of those that are named also the output head and, where asked for, the input
    embeddings; of the chosen blocks only, and none that is trained whole.

    Raises: EffectError or ConfigError for every name and number that matches nothing to adapt, listing what
        exists; IncompatibleError for a head or embeddings that share their weights, and for layers that a
        model never calls
    """
    packed = {n: m for n, m in model.named_modules() if isinstance(m, PackedLinear)}
    fused = fused_experts(model) if experts else {}
    found: dict[str, Layer] = {**linear_layers(model), **packed, **fused}
    family = str(getattr(getattr(model, "config", None), "model_type", ""))
    kernels = READ_BY_KERNELS.get(family, ())
    whole = saved_modules(model, config)
    if config.target_modules:
        found = _named(model, config, found, embeddings=embeddings)
        inside = [name for name in found if _lies_in(name, whole)]
        if inside:
            raise ConfigError(
                f"peft.modules_to_save={list(config.modules_to_save)} trains {inside[0]} whole, and "
                "peft.target_modules puts an adapter on it; name it in one of them"
            )
    found = {name: layer for name, layer in found.items() if not _lies_in(name, whole)}
    past = sorted(name for name in found if name.rpartition(".")[2] in kernels)
    if past:
        free = sorted({name.rpartition(".")[2] for name in found} - {*kernels})
        raise IncompatibleError(
            f"peft.target_modules={list(config.target_modules)} has {past[0]} adapted, and a "
            f"{family} never calls it: kernels read its weight, past any adapter; name "
            f"others, peft.target_modules=[{', '.join(free)}]"
        )
    return _of_blocks(model, config, found) if config.layers_to_transform else found


def fused_experts(model: nn.Module) -> dict[str, Experts]:
    """Parameters that hold the experts of a mixture, by name."""
    layers = linear_layers(model)
    return {
        name: Experts(count=count, in_features=columns, out_features=rows)
        for name, (count, rows, columns) in packed_shapes(model).items()
        if name not in layers
    }


def experts_left_out(model: nn.Module, config: LinearConfig, *, adapted: bool = False) -> str | None:
    """Why all linear layers are not what is asked for: experts that are none, and that the method does not
    adapt or whose layout is not known; None without any."""
    if config.target_modules:
        return None
    strange = unknown_layout(model)
    fused = sorted(fused_experts(model))
    if strange is None and (adapted or not fused):
        return None
    names = ", ".join(sorted({name.rpartition(".")[2] for name in linear_layers(model)}))
    said = "empty peft.target_modules stands for all linear layers; "
    if strange is not None:
        return f"{said}{strange}, or name what to adapt, 'peft.target_modules=[{names}]'"
    return (
        f"{said}the experts of this model are none ({fused[0]} holds those of a block) and would stay as "
        f"they are. Name what to adapt, peft.target_modules=[{names}], use peft=lora, rslora or lora_plus, "
        "which adapt them, or quantize before: packed experts are linear layers"
    )


def _named(
    model: nn.Module, config: LinearConfig, layers: dict[str, Layer], *, embeddings: bool
) -> dict[str, Layer]:
    words, head = ends(model)
    modules = dict(model.named_modules())
    outside = (head, words) if embeddings else (head,)
    outer = {name: module for name, module in modules.items() if module in outside}
    layers = layers | outer
    found = {name: layer for name, layer in layers.items() if words_for(name) & {*config.target_modules}}
    strange = unmatched(config.target_modules, found)
    if strange:
        match_modules(model, strange, where="peft.target_modules")
        names = sorted({name.rpartition(".")[2] for name in layers})
        raise ConfigError(
            f"peft.target_modules={list(config.target_modules)}: {', '.join(strange)} "
            f"{'is no layer' if len(strange) == 1 else 'are no layers'} that can be adapted; "
            f"those are {', '.join(names)}"
        )
    refuse_shared(model, [name for name in found if name in outer], where="target_modules", config=config)
    return found


def _of_blocks(model: nn.Module, config: LinearConfig, layers: dict[str, Layer]) -> dict[str, Layer]:
    """Those of the layers that lie in the chosen blocks."""
    blocks: dict[int, list[str]] = {}
    for name in block_names(model):
        blocks.setdefault(int(name.rpartition(".")[2]), []).append(name)
    asked = config.layers_to_transform
    missing = [number for number in asked if number not in blocks]
    if missing:
        raise ConfigError(
            f"peft.layers_to_transform={list(asked)}: the model has no block {', '.join(map(str, missing))}; "
            f"its blocks are 0 to {max(blocks, default=-1)}"
        )
    chosen = [name for number in asked for name in blocks[number]]
    found = {name: layer for name, layer in layers.items() if _lies_in(name, chosen)}
    strange = unmatched(config.target_modules, found)
    if strange or not found:
        raise ConfigError(
            f"peft.target_modules={list(config.target_modules)}: {', '.join(strange) or 'no layer'} lies in "
            f"no block of peft.layers_to_transform={list(asked)}; leave it out, or name blocks that have it"
        )
    return found


def saved_modules(model: nn.Module, config: LinearConfig) -> dict[str, nn.Module]:
    """The modules that are trained whole, by name.

    Raises: EffectError for every name that matches nothing; ConfigError for one without weights or inside
        another; IncompatibleError for packed weights, and for a head or embeddings that share theirs
    """
    if not config.modules_to_save:
        return {}
    modules, said = dict(model.named_modules()), f"peft.modules_to_save={list(config.modules_to_save)}"
    names = match_modules(model, config.modules_to_save, where="peft.modules_to_save")
    for name in names:
        module = modules[name]
        if any(isinstance(part, PackedLinear) for part in module.modules()):
            raise IncompatibleError(
                f"{said}: {name} holds packed weights, which cannot be trained; adapt it (target_modules), "
                "or put quantize after this stage"
            )
        if not any(True for _ in module.parameters()):
            raise ConfigError(f"{said}: {name} has no weights to train")
        if _lies_in(name.rpartition(".")[0], names):
            raise ConfigError(f"{said}: {name} lies in another of them; name the outer one alone")
    words, head = ends(model)
    outer = [name for name in names if words in modules[name].modules() or head in modules[name].modules()]
    refuse_shared(model, outer, where="modules_to_save", config=config)
    return {name: modules[name] for name in names}


def trained_biases(model: nn.Module, config: AdapterConfig, targets: Iterable[str]) -> list[nn.Parameter]:
    """The biases that are trained beside the adapters.

    Raises: ConfigError where there is none
    """
    if config.bias == "none":
        return []
    whole = saved_modules(model, config)
    found = {n: p for n, p in model.named_parameters() if n.rpartition(".")[2] == "bias"}
    found = {name: p for name, p in found.items() if not _lies_in(name, whole)}
    if config.bias == config.only:
        found = {name: p for name, p in found.items() if name.rpartition(".")[0] in targets}
    if not found:
        where = "" if config.bias == "all" else " of the adapted layers"
        raise ConfigError(
            f"peft.bias={config.bias}: the model has no biases{where}; use peft.bias=none, or peft=bitfit, "
            "which adds them"
        )
    return list(found.values())


def refuse_shared(model: nn.Module, names: list[str], *, where: str, config: LinearConfig) -> None:
    """Refuse to train embeddings and head apart where they are one weight."""
    words, head = ends(model)
    if names and words is not None and head is not None and words.weight is head.weight:
        raise IncompatibleError(
            f"peft.{where}={list(getattr(config, where))}: {names[0]} shares its weight between input "
            "embeddings and output head, so training one would change the other once merged; leave it "
            "out, or use a model that does not share them (model.tie_embeddings=false)"
        )


def words_for(name: str) -> set[str]:
    """What a layer answers to: its name, its last part, and where that is a number those of its list."""
    names = {name, re.sub(r"\.\d+$", "", name)}
    return names | {each.rpartition(".")[2] for each in names}


def unmatched(patterns: list[str], names: Iterable[str]) -> list[str]:
    """Of the patterns, those to which no layer answers."""
    taken = {word for name in names for word in words_for(name)}
    return [pattern for pattern in patterns if pattern not in taken]


def _lies_in(name: str, outer: Iterable[str]) -> bool:
    """Whether a module is one of the outer ones, or part of one."""
    return any(name == each or name.startswith(f"{each}.") for each in outer)


def ends(model: nn.Module) -> tuple[nn.Module | None, nn.Module | None]:
    """The input embeddings and the output head of a causal model, as far as it has them."""
    words = getattr(model, "get_input_embeddings", lambda: None)()
    head = getattr(model, "get_output_embeddings", lambda: None)()
    return words, head


def layer_size(layer: Layer) -> tuple[int, int]:
    """(in, out) of a layer, without unpacking it, or of each expert; embeddings read their rows' numbers."""
    if isinstance(layer, PackedLinear | Experts):
        return layer.in_features, layer.out_features
    if isinstance(layer, nn.Embedding):
        return layer.num_embeddings, layer.embedding_dim
    out_features, in_features = weight_matrix(layer).shape
    return in_features, out_features
