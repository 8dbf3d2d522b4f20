"""LLaMA-Adapter: trained prompts that upper layers attend to through a gate that starts closed."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from harness import (
    Attention,
    ConfigError,
    IncompatibleError,
    Kept,
    Method,
    Peft,
    hookimpl,
    match_modules,
    replace_module,
)

from ._own import OwnPeft, Wrapper
from ._scope import layer_size


class PromptedAttention(Wrapper):
    """An attention layer that adds gate * softmax(q K_p^T) V_p, K_p and V_p projected from the prompt.

    Shapes: adaption_prompt 1 x P x D; adaption_gate 1, zero at the start
    """

    def __init__(self, base_layer: nn.Module, length: int, width: int, like: Tensor) -> None:
        super().__init__(base_layer)
        self.adaption_prompt = nn.Parameter(torch.randn(1, length, width, device=like.device))
        self.adaption_gate = nn.Parameter(torch.zeros(1, device=like.device))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        out = self.base_layer(*args, **kwargs)
        if not self.enabled:
            return out
        x_BTD: Tensor = args[0] if args else kwargs["hidden_states"]
        extra_BTD = self.extra(x_BTD, args[1:], kwargs)
        return (out[0] + extra_BTD, *out[1:]) if isinstance(out, tuple) else out + extra_BTD

    def extra(self, x_BTD: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """What the prompt adds to the attention's output; queries are rotated, prompt keys are not."""
        layer: Any = self.base_layer
        own = isinstance(layer, Attention)
        head_dim = layer.spec.head_dim if own else layer.head_dim
        scale = layer.scale if own else getattr(layer, "scaling", head_dim**-0.5)

        def heads(y: Tensor) -> Tensor:
            return y.reshape(*y.shape[:-1], -1, head_dim).transpose(-3, -2)

        q_BNTH = rotated(layer, heads(layer.q_proj(x_BTD)), args, kwargs)
        prompt_PD = self.adaption_prompt[0].to(x_BTD.dtype)
        k_KPH, v_KPH = heads(layer.k_proj(prompt_PD)), heads(layer.v_proj(prompt_PD))
        groups = q_BNTH.shape[1] // k_KPH.shape[0]
        k_NPH, v_NPH = (y.repeat_interleave(groups, dim=0) for y in (k_KPH, v_KPH))
        scores = (q_BNTH @ k_NPH.transpose(-1, -2)) * scale
        mixed = self.adaption_gate.to(x_BTD.dtype) * scores.float().softmax(-1).to(x_BTD.dtype) @ v_NPH
        out: Tensor = layer.o_proj(mixed.transpose(1, 2).flatten(2))
        # The attention has added its bias; an update behind a closed gate is zero.
        return out if layer.o_proj.bias is None else out - layer.o_proj.bias.to(out.dtype)


def rotated(layer: nn.Module, q_BNTH: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Queries at their positions, the way the model's own attention rotates them."""
    if kwargs.get("position_embeddings") is not None:  # Hugging Face hands cosines and sines down
        cos_BTR, sin_BTR = kwargs["position_embeddings"]
        width = cos_BTR.shape[-1]  # the rest of a head is left as it is where rotation is partial
        apply = sys.modules[type(layer).__module__].apply_rotary_pos_emb
        turned_BNTR, _ = apply(q_BNTH[..., :width], q_BNTH[..., :width], cos_BTR, sin_BTR)
        turned: Tensor = torch.cat([turned_BNTR, q_BNTH[..., width:]], dim=-1)
        return turned
    if kwargs.get("position") is not None:
        placed: Tensor = kwargs["position"].rotate(q_BNTH, args[0].query_position_BT, is_key=False)
        return placed
    return q_BNTH


PROJECTIONS = {"q_proj", "k_proj", "v_proj", "o_proj"}
HARMLESS = {*PROJECTIONS, "rotary_emb", "attention_dropout", "position"}
"""Members of an attention layer that change no query or key beside the rotation."""


def beyond_projections(layer: nn.Module) -> str | None:
    """What an attention layer does that a prompt beside it would miss; None where there is nothing."""
    members = {name for name, _ in layer.named_children()}
    if missing := sorted(PROJECTIONS - members):
        return f"has no {', '.join(missing)}"
    parameters = {name for name, _ in layer.named_parameters(recurse=False)}
    if extra := sorted((members | parameters) - HARMLESS):
        return f"has {', '.join(extra)} besides"
    spec, config = getattr(layer, "spec", None), getattr(layer, "config", None)
    for owner, name in ((layer, "attn_logit_softcapping"), (config, "clip_qkv"), (spec, "attention_cap")):
        if getattr(owner, name, None) is not None:
            return f"bounds its scores ({name})"
    head_dim = layer.spec.head_dim if isinstance(layer, Attention) else getattr(layer, "head_dim", 0)
    if not head_dim or layer_size(layer.o_proj)[0] != layer_size(layer.q_proj)[1]:  # type: ignore[arg-type]
        return "projects more than queries with q_proj"
    return None


class LlamaAdapter(OwnPeft):
    """Adaption prompts with zero-initialised gates in the topmost layers; saved as the peft library does.

    Paper: Zhang et al. 2023, arXiv:2303.16199, section 3
    Differs: one gate for all heads of a layer, as in the peft library
    Raises: IncompatibleError on attention that does more with its queries than project and rotate them
    """

    name = "llama_adapter"
    prefix = "base_model.model."
    kept = Kept(inputs=False)

    @dataclass(frozen=True, kw_only=True)
    class Config(Peft.Config):
        prompt_length: int = 8
        """Trained vectors in each adapted layer."""
        num_layers: int | None = None
        """Topmost layers that are adapted; null for all."""
        target_modules: list[str] = field(default_factory=lambda: ["self_attn"])
        """Names of the attention modules; they have q_proj, k_proj, v_proj and o_proj."""

        def __post_init__(self) -> None:
            if self.prompt_length < 1 or (self.num_layers is not None and self.num_layers < 1):
                raise ConfigError("peft.prompt_length and peft.num_layers must be at least 1")

    config: Config

    def apply(self, model: nn.Module) -> nn.Module:
        weight = model.get_input_embeddings().weight  # type: ignore[operator]
        model.requires_grad_(False)
        for name in self.targets(model):
            layer = model.get_submodule(name)
            wrapped = PromptedAttention(layer, self.config.prompt_length, weight.shape[1], weight)
            replace_module(model, name, wrapped)
        return model

    def adapter_config(self, model: nn.Module) -> dict[str, Any]:
        layers = sum(isinstance(module, PromptedAttention) for module in model.modules())
        return {
            "peft_type": "ADAPTION_PROMPT",
            "task_type": "CAUSAL_LM",
            "adapter_len": self.config.prompt_length,
            "adapter_layers": layers,
        }

    def targets(self, model: nn.Module) -> list[str]:
        """Attention modules of the topmost layers."""
        found = match_modules(model, self.config.target_modules, where="peft.target_modules")
        if self.config.num_layers is not None and self.config.num_layers > len(found):
            raise ConfigError(
                f"peft.num_layers={self.config.num_layers} is more than the model's {len(found)} layers"
            )
        chosen = found[-self.config.num_layers :] if self.config.num_layers else found
        for name in chosen:
            if (why := beyond_projections(model.get_submodule(name))) is not None:
                raise IncompatibleError(
                    f"peft=llama_adapter reads queries as they are projected and rotated; {name}, a "
                    f"{type(model.get_submodule(name)).__name__}, {why}; use peft=lora or peft=prefix_tuning"
                )
        return chosen

    def trainable_parameters(self, model: nn.Module) -> int:
        """A prompt and a gate for each adapted layer."""
        width: int = model.get_input_embeddings().weight.shape[1]  # type: ignore[operator]
        return len(self.targets(model)) * (self.config.prompt_length * width + 1)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [LlamaAdapter]
