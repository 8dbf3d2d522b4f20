"""AdaLoRA: low-rank updates that share one budget of ranks, spent where it matters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness import ConfigError, Method, hookimpl

from ._library import LowRank, LowRankConfig, linear_targets


class AdaLoRA(LowRank):
    """W + P diag(lambda) Q with P and Q kept near orthogonal; the least important lambda are pruned.

    Paper: Zhang et al. 2023, arXiv:2303.10512, algorithm 1
    Differs: a pruned lambda stays pruned
    State: importance scores live in the model and restart with a resumed run
    """

    name = "adalora"

    @dataclass(frozen=True, kw_only=True)
    class Config(LowRankConfig):
        target_rank: int = 4
        """Mean rank that is left at the end; at most `rank`."""
        warmup_steps: int = 10
        """Steps before pruning starts."""
        total_steps: int = 100
        """Steps of the stage; pruning has ended four fifths of the way."""
        prune_every: int = 5
        """Steps between two rounds of pruning."""
        orthogonality: float = 0.5
        """Weight of the penalty on P^T P - I and Q Q^T - I."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not 1 <= self.target_rank <= self.rank:
                raise ConfigError(
                    f"peft.target_rank={self.target_rank} must lie between 1 and peft.rank={self.rank}"
                )
            if self.warmup_steps >= self.total_steps - self.total_steps // 5:
                raise ConfigError(
                    f"peft.warmup_steps={self.warmup_steps} leaves no step for pruning; keep it below four "
                    f"fifths of peft.total_steps={self.total_steps}"
                )

    config: Config

    def library_config(self, model: nn.Module) -> Any:
        from peft import AdaLoraConfig

        return AdaLoraConfig(
            init_r=self.config.rank,
            target_r=self.config.target_rank,
            lora_alpha=self.config.alpha,
            lora_dropout=self.config.dropout,
            tinit=self.config.warmup_steps,
            tfinal=self.config.total_steps // 5,
            deltaT=self.config.prune_every,
            total_step=self.config.total_steps,
            orth_reg_weight=self.config.orthogonality,
            target_modules=list(linear_targets(model, self.config)),
            task_type="CAUSAL_LM",
        )

    def on_gradients(self, model: nn.Module, step: int) -> dict[str, float | Tensor]:
        penalty = self.penalty(model)
        (self.config.orthogonality * penalty).backward()  # type: ignore[no-untyped-call]
        if step < self.config.total_steps:
            inner: Any = getattr(model, "module", model)
            inner.base_model.update_and_allocate(step)
        if step > self.config.warmup_steps:
            for values in self.singular_values(model):
                if values.grad is not None:
                    values.grad.masked_fill_(values == 0, 0.0)
        return {"orthogonality": penalty.detach()}

    def save(self, model: nn.Module, directory: Path) -> None:
        pattern = model.peft_config["default"].rank_pattern  # type: ignore[index,union-attr]
        if pattern:  # momentum may have moved what was pruned
            inner: Any = model.base_model
            inner.rankallocator.mask_using_rank_pattern(inner.model, pattern)
        super().save(model, directory)

    def singular_values(self, model: nn.Module) -> list[nn.Parameter]:
        """The lambda of each layer."""
        return [p for name, p in model.named_parameters() if "lora_E" in name and p.requires_grad]

    def penalty(self, model: nn.Module) -> Tensor:
        """Mean squared distance of P^T P and Q Q^T from the identity (eq. 4)."""
        terms = []
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and ("lora_A" in name or "lora_B" in name):
                wide = parameter if "lora_A" in name else parameter.T
                gram = wide @ wide.T
                terms.append((gram - torch.eye(len(gram), device=gram.device)).norm())
        return torch.stack(terms).mean()

    def trainable_parameters(self, model: nn.Module) -> int:
        """LoRA's, and r singular values for each layer."""
        layers = len(linear_targets(model, self.config))
        return super().trainable_parameters(model) + self.config.rank * layers


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [AdaLoRA]
