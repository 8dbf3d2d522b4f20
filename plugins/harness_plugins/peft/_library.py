"""Shared by the methods that the `peft` library has: one adapter, its config, merge and checks."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from harness import (
    ConfigError,
    IncompatibleError,
    Method,
    PackedLinear,
    Peft,
    Problem,
    tuned_by,
    unfuse_experts,
    unknown_layout,
)

from ._scope import (
    AdapterConfig,
    DropoutConfig,
    Experts,
    Layer,
    LinearConfig,
    experts_left_out,
    fused_experts,
    layer_size,
    linear_targets,
    saved_modules,
    trained_biases,
)

if TYPE_CHECKING:
    from harness import CellView


class LibraryPeft(Peft):
    """Applies a `peft` config to any Hugging Face causal model."""

    @abstractmethod
    def library_config(self, model: nn.Module) -> Any:
        """The `peft` config for this model."""
        raise NotImplementedError

    def apply(self, model: nn.Module) -> nn.Module:
        from peft import get_peft_model

        return get_peft_model(model, self.library_config(model))  # type: ignore[no-any-return]

    def merge(self, model: nn.Module) -> nn.Module:
        if not self.mergeable:
            return super().merge(model)
        if any(isinstance(module, PackedLinear) for module in model.modules()):
            raise IncompatibleError(
                f"peft={self.name} cannot be merged into packed weights: the sum is not on the grid; "
                "tune and merge before quantizing, or keep the adapter"
            )
        return model.merge_and_unload()  # type: ignore[operator,no-any-return]


class LinearPeft(LibraryPeft):
    """Base of the methods that act on linear layers, one by one."""

    mergeable = True
    adapts_embeddings = False
    """Whether the peft library can put it on embeddings."""
    adapts_experts = False
    """Whether the peft library can put it on experts that lie in one parameter."""
    Config = LinearConfig
    config: LinearConfig

    def __init__(self, config: Method.Config | None = None) -> None:
        super().__init__(config)
        # Switching adapters off leaves trained biases in place.
        self.reversible = type(self).reversible and getattr(self.config, "bias", "none") == "none"

    @classmethod
    def check(cls, config: Any, cell: CellView, meta_model: nn.Module | None) -> Iterable[Problem]:
        if meta_model is not None and packed_first(cell, cls):
            meta_model = as_packed(meta_model)
        found = list(super().check(config, cell, meta_model))
        yield from found
        if meta_model is None:
            return
        method = cls(config)
        if (message := method.experts_problem(meta_model)) is not None:
            yield Problem(where="peft.target_modules", message=message)
        elif not found and (problem := method.size_problem(meta_model)) is not None:
            yield problem

    def experts_problem(self, model: nn.Module) -> str | None:
        """Why experts of the model cannot be adapted as asked; None where they can, or without any."""
        return experts_left_out(model, self.config, adapted=self.adapts_experts)

    def size_problem(self, model: nn.Module) -> Problem | None:
        """The first layer whose size the options do not fit; found by the plan, and before training."""
        return None

    def apply(self, model: nn.Module) -> nn.Module:
        if (message := self.experts_problem(model)) is not None:
            raise IncompatibleError(message)
        if (problem := self.size_problem(model)) is not None:
            raise ConfigError(str(problem))
        return super().apply(model)

    def layers(self, model: nn.Module) -> dict[str, Layer]:
        """What is adapted, by name."""
        return linear_targets(
            model, self.config, embeddings=self.adapts_embeddings, experts=self.adapts_experts
        )

    def targets(self, model: nn.Module) -> list[str]:
        layers = self.layers(model)
        if isinstance(self.config, AdapterConfig):
            trained_biases(model, self.config, layers)
        return list(layers)

    def scope(self, model: nn.Module) -> dict[str, Any]:
        """What every `peft` config is told: the layers, and what is trained beside their adapters."""
        experts = [name for name, layer in self.layers(model).items() if isinstance(layer, Experts)]
        modules = [name for name in self.targets(model) if name not in experts]
        said: dict[str, Any] = {"target_modules": modules, "task_type": "CAUSAL_LM"}
        if experts:
            said["target_parameters"] = experts
        if isinstance(self.config, AdapterConfig):
            said["bias"] = self.config.bias
        return said | {"modules_to_save": list(saved_modules(model, self.config)) or None}

    def trainable_parameters(self, model: nn.Module) -> int:
        """What `layer_parameters` says of each adapted layer, and what is trained beside them."""
        layers = self.layers(model)
        whole = [p for m in saved_modules(model, self.config).values() for p in m.parameters()]
        beside = {id(p): p.numel() for p in whole}
        if isinstance(self.config, AdapterConfig):
            beside |= {id(p): p.numel() for p in trained_biases(model, self.config, layers)}
        return sum(self.layer_parameters(n, m) for n, m in layers.items()) + sum(beside.values())

    @abstractmethod
    def layer_parameters(self, name: str, layer: Layer) -> int:
        """Parameters that it trains for one layer."""
        raise NotImplementedError


def packed_first(cell: CellView, method: type[Peft]) -> bool:
    """Whether a stage packs the model before one tunes it with the method."""
    for stage in cell.stages:
        if tuned_by(cell, stage) is method:
            return False
        if "quantizer" in cell.reads(stage) and cell.choice("quantizer", stage=stage) is not None:
            return True
    return False


def as_packed(model: nn.Module) -> nn.Module:
    """The model with experts that are linear layers, as they are once packed; a copy where that differs."""
    if unknown_layout(model) is not None or not fused_experts(model):
        return model
    model = copy.deepcopy(model)
    unfuse_experts(model)
    return model


@dataclass(frozen=True, kw_only=True)
class LowRankConfig(DropoutConfig):
    """Options of low-rank adapters."""

    rank: int = 8
    """Rank r of the update; at most the smaller side of every adapted layer."""
    alpha: float = 16.0
    """The update is scaled by alpha / rank."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank < 1:
            raise ConfigError(f"peft.rank={self.rank} must be at least 1")


class LowRank(LinearPeft):
    """Base of LoRA, its variants, and AdaLoRA."""

    Config = LowRankConfig
    config: LowRankConfig

    def ranks(self, layers: Iterable[str]) -> dict[str, int]:
        """The rank of each layer's update."""
        return dict.fromkeys(layers, self.config.rank)

    def size_problem(self, model: nn.Module) -> Problem | None:
        """The first layer that the rank is too large for."""
        layers = self.layers(model)
        ranks = self.ranks(layers)
        small = [name for name, rank in ranks.items() if rank > min(layer_size(layers[name]))]
        if not small:
            return None
        name, size = small[0], layer_size(layers[small[0]])
        kinds = {each.rpartition(".")[2] for each in layers} - {each.rpartition(".")[2] for each in small}
        others = f", or peft.target_modules=[{', '.join(sorted(kinds))}]" if kinds else ""
        return Problem(
            where="peft.rank",
            message=f"rank {ranks[name]} is above the size of layer {name}, {size[0]} x {size[1]}; use at "
            f"most {min(size)}{others}",
        )

    def layer_parameters(self, name: str, layer: Layer) -> int:
        """r * (in + out), of each expert where the layer holds several."""
        matrices = layer.count if isinstance(layer, Experts) else 1
        return matrices * self.ranks([name])[name] * sum(layer_size(layer))
