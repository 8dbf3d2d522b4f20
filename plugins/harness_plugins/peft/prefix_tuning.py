"""Prefix tuning: trained keys and values before those of every layer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from torch import nn

from harness import Attention, IncompatibleError, Method, Problem, hookimpl

from ._scope import LinearConfig, layer_size, linear_targets
from ._virtual import EncodedConfig, VirtualTokens

if TYPE_CHECKING:
    from harness import CellView


class PrefixTuning(VirtualTokens):
    """Keys and values of a prefix in every layer, computed by an MLP while training.

    Paper: Li and Liang 2021, arXiv:2101.00190, section 4.3
    """

    name = "prefix_tuning"

    Config = EncodedConfig
    config: EncodedConfig

    @classmethod
    def check(cls, config: Any, cell: CellView, meta_model: nn.Module | None) -> Iterable[Problem]:
        yield from super().check(config, cell, meta_model)
        layers = [] if meta_model is None else [m for m in meta_model.modules() if isinstance(m, Attention)]
        without = sorted({layer.name for layer in layers if not layer.reads_keys})
        if without:
            yield Problem(
                where=f"peft={cls.name}",
                message=f"it gives every layer keys and values, and attention={' and '.join(without)} reads "
                "none; use peft=prompt_tuning or p_tuning, or another attention",
            )
        if len({layer.kv_heads for layer in layers}) > 1:
            yield Problem(
                where=f"peft={cls.name}",
                message="it gives every layer equally many keys, and those of model.layer_pattern have "
                "different numbers of key/value heads; use peft=prompt_tuning or p_tuning",
            )

    def targets(self, model: nn.Module) -> list[str]:
        """Raises: IncompatibleError where a layer is no attention, or keeps no keys of one width"""
        config: Any = getattr(model, "config", None)  # shapes of a model of ours have none
        if config is None:
            return []
        kinds = {
            kind
            for kind in getattr(config, "layer_types", None) or ()
            if not kind.endswith("attention") or kind == "linear_attention"
        }
        lacks = "layers without attention" if not getattr(config, "num_attention_heads", None) else ""
        if kinds:
            lacks = f"layers of {', '.join(sorted(kinds))}"
        elif getattr(config, "kv_lora_rank", None):
            lacks = "keys that are wider than its values"
        if lacks:
            raise IncompatibleError(
                f"peft=prefix_tuning puts keys and values before those of every layer, and a "
                f"{config.model_type} has {lacks}; use peft=prompt_tuning, whose vectors stand before "
                "embedded tokens"
            )
        return []

    def library_config(self, model: nn.Module) -> Any:
        from peft import PrefixTuningConfig

        self.targets(model)
        config: Any = model.config
        return PrefixTuningConfig(
            num_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            token_dim=config.hidden_size,
            num_virtual_tokens=self.config.num_virtual_tokens,
            encoder_hidden_size=self.config.hidden,
            prefix_projection=True,
            task_type="CAUSAL_LM",
        )

    def virtual_tokens(self) -> int:
        return 0  # keys and values only

    def trainable_parameters(self, model: nn.Module) -> int | None:
        """Embeddings P x k and the MLP k -> h -> 2 L k, where k is the width of a layer's keys; None for a
        model whose layers do not name them."""
        self.targets(model)
        layers = linear_targets(model, LinearConfig())
        keys = [layer_size(layer)[1] for name, layer in layers.items() if name.endswith("self_attn.k_proj")]
        if not keys:
            return None
        k, h = keys[0], self.config.hidden
        mlp = (k * h + h) + (h + 1) * 2 * len(keys) * k
        return self.config.num_virtual_tokens * k + mlp


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [PrefixTuning]
