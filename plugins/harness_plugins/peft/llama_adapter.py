"""LLaMA-Adapter: trained prompts that upper layers attend to through a gate that starts closed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from harness import (
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
        head_dim = getattr(layer, "head_dim", None) or layer.spec.head_dim

        def heads(y: Tensor) -> Tensor:
            return y.reshape(*y.shape[:-1], -1, head_dim).transpose(-3, -2)

        q_BNTH = rotated(heads(layer.q_proj(x_BTD)), args, kwargs)
        prompt_PD = self.adaption_prompt[0].to(x_BTD.dtype)
        k_KPH, v_KPH = heads(layer.k_proj(prompt_PD)), heads(layer.v_proj(prompt_PD))
        groups = q_BNTH.shape[1] // k_KPH.shape[0]
        k_NPH, v_NPH = (y.repeat_interleave(groups, dim=0) for y in (k_KPH, v_KPH))
        scores = (q_BNTH @ k_NPH.transpose(-1, -2)) * head_dim**-0.5
        mixed = self.adaption_gate.to(x_BTD.dtype) * scores.float().softmax(-1).to(x_BTD.dtype) @ v_NPH
        out: Tensor = layer.o_proj(mixed.transpose(1, 2).flatten(2))
        return out


def rotated(q_BNTH: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Queries at their positions, the way the model's own attention rotates them."""
    if kwargs.get("position_embeddings") is not None:  # Hugging Face hands cosines and sines down
        cos, sin = (y.unsqueeze(1) for y in kwargs["position_embeddings"])
        first, second = q_BNTH.chunk(2, dim=-1)
        turned: Tensor = q_BNTH * cos + torch.cat([-second, first], dim=-1) * sin
        return turned
    if kwargs.get("position") is not None:
        placed: Tensor = kwargs["position"].rotate(q_BNTH, args[0].query_position_BT, is_key=False)
        return placed
    return q_BNTH


class LlamaAdapter(OwnPeft):
    """Adaption prompts with zero-initialised gates in the topmost layers; saved as the peft library does.

    Paper: Zhang et al. 2023, arXiv:2303.16199, section 3
    Differs: one gate for all heads of a layer, as in the peft library
    """

    name = "llama_adapter"
    prefix = "base_model.model."
    kept = Kept(inputs=False)

    @dataclass(frozen=True, kw_only=True)
    class Config(Peft.Config):
        prompt_length: int = 8
        """Trained vectors in each adapted layer."""
        num_layers: int = 0
        """Topmost layers that are adapted; 0 for all."""
        target_modules: list[str] = field(default_factory=lambda: ["self_attn"])
        """Names of the attention modules; they have q_proj, k_proj, v_proj and o_proj."""

        def __post_init__(self) -> None:
            if self.prompt_length < 1 or self.num_layers < 0:
                raise ConfigError("peft.prompt_length must be positive and peft.num_layers not negative")

    config: Config

    def apply(self, model: nn.Module) -> nn.Module:
        weight = model.get_input_embeddings().weight  # type: ignore[operator]
        model.requires_grad_(False)
        for name in self.targets(model):
            layer = model.get_submodule(name)
            if not hasattr(layer, "q_proj") or not hasattr(layer, "o_proj"):
                raise IncompatibleError(
                    f"peft=llama_adapter needs q_proj, k_proj, v_proj and o_proj in {name}, a "
                    f"{type(layer).__name__}; use peft=prefix_tuning"
                )
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
        return found[-self.config.num_layers :]

    def trainable_parameters(self, model: nn.Module) -> int:
        """A prompt and a gate for each adapted layer."""
        width: int = model.get_input_embeddings().weight.shape[1]  # type: ignore[operator]
        return len(self.targets(model)) * (self.config.prompt_length * width + 1)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [LlamaAdapter]
