"""AdaLoRA: low-rank updates that share one budget of ranks, spent where it matters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness import ConfigError, Method, hookimpl

from ._library import LowRank, LowRankConfig
from ._scope import Layer

LAST = 0.2
"""Share of the stage's steps, its last, in which the ranks that are left are tuned."""


class AdaLoRA(LowRank):
    """W + P diag(lambda) Q with P and Q kept near orthogonal; the least important lambda are pruned.

    Paper: Zhang et al. 2023, arXiv:2303.10512, algorithm 1
    Differs: a pruned lambda stays pruned
    State: averages of importance and of its uncertainty, for each weight; which lambda are left
    """

    name = "adalora"

    @dataclass(frozen=True, kw_only=True)
    class Config(LowRankConfig):
        target_rank: int = 4
        """Mean rank that is left at the end; at most `rank`."""
        warmup_share: float = 0.1
        """Share of the stage's steps before pruning starts; it has ended after four fifths of them."""
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
            if not 0 <= self.warmup_share < 1 - LAST:
                raise ConfigError(
                    f"peft.warmup_share={self.warmup_share} must lie in [0, {1 - LAST:g}): pruning ends when "
                    f"{1 - LAST:g} of the stage's steps are done"
                )
            if self.prune_every < 1:
                raise ConfigError(f"peft.prune_every={self.prune_every} must be at least 1")

    config: Config

    def __init__(self, config: Method.Config | None = None) -> None:
        super().__init__(config)
        self.total_steps, self.alive = 1, dict[str, Tensor]()
        self.scores: dict[str, dict[str, Tensor]] = {}

    def library_config(self, model: nn.Module) -> Any:
        from peft import AdaLoraConfig

        return AdaLoraConfig(
            init_r=self.config.rank,
            target_r=self.config.target_rank,
            lora_alpha=self.config.alpha,
            lora_dropout=self.config.dropout,
            deltaT=self.config.prune_every,
            total_step=1,  # known as the stage runs
            orth_reg_weight=self.config.orthogonality,
            **self.scope(model),
        )

    def on_gradients(self, model: nn.Module, step: int) -> dict[str, float | Tensor]:
        penalty = self.penalty(model)
        (self.config.orthogonality * penalty).backward()  # type: ignore[no-untyped-call]
        inner = getattr(model, "module", model)
        self.prune(inner, step)
        for name, values in self.singular_values(inner).items():
            if values.grad is not None and name in self.alive:
                values.grad.masked_fill_(like(~self.alive[name], values), 0.0)
        return {"orthogonality": penalty.detach()}

    def on_step(self, step: int, total_steps: int) -> None:
        self.total_steps = total_steps

    @torch.no_grad()
    def prune(self, model: Any, step: int) -> None:
        """Keep the most important lambda, as many as the schedule leaves after this step (eq. 12)."""
        allocator = model.base_model.rankallocator
        start, end = int(self.config.warmup_share * self.total_steps), self.last_pruning()
        if not allocator.exp_avg_ipt and self.scores:  # resumed
            for name, parameter in model.base_model.model.named_parameters():
                if name in self.scores["exp_avg_ipt"]:
                    allocator.ipt[name] = torch.zeros_like(parameter)
                    for kind, values in self.scores.items():
                        getattr(allocator, kind)[name] = like(values[name], parameter)
            self.keep(model, self.alive)
        allocator.update_ipt(model.base_model.model)
        self.scores = {kind: getattr(allocator, kind) for kind in ("exp_avg_ipt", "exp_avg_unc")}
        full, target = allocator.init_bgt, allocator.target_bgt
        to_go = 0.0 if step >= end else min(1.0, (end - step) / max(1, end - start))
        budget = target + int((full - target) * to_go**3)
        left = sum(int(mask.sum()) for mask in self.alive.values()) if self.alive else full
        if budget < left and (step >= end or step % self.config.prune_every == 0):
            self.keep(model, self.most_important(model, budget))
        self.mask(model)

    def training_state(self) -> dict[str, Any]:
        return {
            "alive": dict(self.alive),
            "scores": {kind: {n: whole(v) for n, v in of.items()} for kind, of in self.scores.items()},
        }

    def load_training_state(self, state: dict[str, Any]) -> None:
        self.alive, self.scores = state["alive"], state["scores"]

    def last_pruning(self) -> int:
        """The step after which only what is left is tuned."""
        return self.total_steps - max(1, int(LAST * self.total_steps))

    def most_important(self, model: Any, budget: int) -> dict[str, Tensor]:
        """Which lambda are among the `budget` most important (eq. 8 to 11), of equals each layer's first."""
        allocator, scores = model.base_model.rankallocator, {}
        for name in self.singular_values(model):
            parts = [name.replace("lora_E", part) for part in ("lora_E", "lora_A", "lora_B")]
            known = [part.removeprefix("base_model.model.") for part in parts]
            e, a, b = (
                whole(allocator.exp_avg_ipt[part]) * whole(allocator.exp_avg_unc[part]) for part in known
            )
            score_R = e.flatten() + a.mean(1) + b.mean(0)
            pruned_R = (
                ~self.alive[name].flatten()
                if name in self.alive
                else torch.zeros_like(score_R, dtype=torch.bool)
            )
            scores[name] = score_R.masked_fill(pruned_R, -1.0)
        scores_RL = torch.stack(list(scores.values()), dim=1)
        best = scores_RL.flatten().sort(descending=True, stable=True).indices[:budget]
        kept_RL = torch.zeros_like(scores_RL, dtype=torch.bool)
        kept_RL.view(-1)[best] = True
        return {name: kept_RL[:, place, None] for place, name in enumerate(scores)}

    def keep(self, model: Any, kept: dict[str, Tensor]) -> None:
        """Note which lambda are left, here and where the peft library saves it."""
        self.alive = kept
        model.peft_config["default"].rank_pattern = {
            name.removeprefix("base_model.model."): mask.flatten().tolist() for name, mask in kept.items()
        }

    def mask(self, model: nn.Module) -> None:
        """Set what is pruned to zero; an optimizer's momentum may have moved it."""
        for name, values in self.singular_values(model).items():
            if name in self.alive:
                values.masked_fill_(like(~self.alive[name], values), 0.0)

    def save(self, model: nn.Module, directory: Path) -> None:
        pattern = model.peft_config["default"].rank_pattern  # type: ignore[index,union-attr]
        if pattern:  # momentum may have moved what was pruned
            inner: Any = model.base_model
            inner.rankallocator.mask_using_rank_pattern(inner.model, pattern)
        super().save(model, directory)

    def singular_values(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """The lambda of each layer that is trained, r x 1, by name."""
        return {name: p for name, p in model.named_parameters() if "lora_E" in name and p.requires_grad}

    def penalty(self, model: nn.Module) -> Tensor:
        """Mean squared distance of P^T P and Q Q^T from the identity (eq. 4)."""
        terms = []
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and ("lora_A" in name or "lora_B" in name):
                matrix = whole(parameter)
                wide = matrix if "lora_A" in name else matrix.T
                gram = wide @ wide.T
                terms.append((gram - torch.eye(len(gram), device=gram.device)).norm())
        return torch.stack(terms).mean()

    def layer_parameters(self, name: str, layer: Layer) -> int:
        """LoRA's, and r singular values."""
        return super().layer_parameters(name, layer) + self.config.rank


def whole(tensor: Tensor) -> Tensor:
    """A tensor, put together where it is sharded."""
    full: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return full


def like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A tensor on the device of a parameter, sharded as it is."""
    mesh = getattr(parameter, "device_mesh", None)
    if mesh is None:
        return tensor.to(parameter.device)
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(parameter.device), mesh, parameter.placements)  # type: ignore[attr-defined]


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [AdaLoRA]
