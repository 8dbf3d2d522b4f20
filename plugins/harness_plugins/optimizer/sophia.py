"""Sophia: momentum clipped by a light estimate of the Hessian's diagonal."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness import ConfigError, LossTerm, Method, Optimizer, hookimpl


class Sophia(Optimizer):
    """Sophia-G: every few steps the Gauss-Newton diagonal is estimated from labels the model itself draws.

    Paper: Liu et al. 2023, arXiv:2305.14342, algorithms 2 and 3
    State: momentum and Hessian diagonal
    """

    name = "sophia"
    conflicts = frozenset({"many_processes"})

    @dataclass(frozen=True, kw_only=True)
    class Config(Optimizer.Config):
        weight_decay: float = 0.2
        """Decoupled decay of matrices."""
        beta1: float = 0.965
        """Decay of the momentum."""
        beta2: float = 0.99
        """Decay of the Hessian's diagonal."""
        gamma: float = 0.05
        """Scale of the Hessian in the clipped ratio; smaller clips more."""
        eps: float = 1e-12
        """Smallest denominator."""
        every: int = 10
        """Steps between estimates of the Hessian."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.every < 1:
                raise ConfigError(f"optimizer.every={self.every} must be at least 1")
            if self.gamma <= 0:
                raise ConfigError(f"optimizer.gamma={self.gamma} must be positive")

    config: Config

    def build(self, model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        names = ("beta1", "beta2", "gamma", "eps")
        options = {name: getattr(self.config, name) for name in names}
        self.built = _SophiaG(self.groups(model), {"lr": learning_rate, "steps": 0, **options})
        self.sampled: list[Tensor] = []
        self.count: Tensor | int = 0
        return self.built

    def loss_terms(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> list[LossTerm]:
        if self.built.param_groups[0]["steps"] % self.config.every == 0:
            self._sample(outputs["logits"], batch.get("labels_BT"))
        return []

    def on_gradients(self, model: nn.Module, step: int) -> dict[str, float | Tensor]:
        if self.sampled:
            self.built.estimate(self.sampled, self.count)
            self.sampled, self.count = [], 0
        return {}

    def _sample(self, logits_BTV: Tensor, labels_BT: Tensor | None) -> None:
        # Algorithm 2, summed over micro-batches: B * (mean gradient)^2 = (summed gradient)^2 / B.
        with torch.autocast(logits_BTV.device.type, enabled=False):
            flat = logits_BTV.flatten(0, -2).float()
            drawn = torch.multinomial(flat.detach().softmax(-1), 1).squeeze(-1)
            if labels_BT is not None:
                drawn = drawn.where(labels_BT.flatten() != -100, -100)
            loss = F.cross_entropy(flat, drawn, ignore_index=-100, reduction="sum")
        weights = self.built.weights()
        found = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
        gradients = [torch.zeros_like(w) if g is None else g for w, g in zip(weights, found, strict=True)]
        if self.sampled:
            torch._foreach_add_(self.sampled, gradients)
        else:
            self.sampled = gradients
        self.count = self.count + (drawn != -100).sum()


class _SophiaG(torch.optim.Optimizer):
    def weights(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    @torch.no_grad()
    def estimate(self, summed: list[Tensor], count: Tensor | int) -> None:
        beta2 = self.param_groups[0]["beta2"]
        # A batch without labels, or whose sums overflow in half precision, says nothing.
        known = torch.stack([gradient.isfinite().all() for gradient in summed]).all() & (count > 0)
        for p, gradient in zip(self.weights(), summed, strict=True):
            hessian = self._state(p)["hessian"]
            found = hessian.mul(beta2).add_(gradient.square() / count, alpha=1 - beta2)
            hessian.copy_(found.where(known, hessian))

    def _state(self, p: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[p]
        if not state:
            state["momentum"], state["hessian"] = torch.zeros_like(p), torch.zeros_like(p)
        return state

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            group["steps"] += 1
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self._state(p)
                state["momentum"].lerp_(p.grad, 1 - group["beta1"])
                p.mul_(1 - group["lr"] * group["weight_decay"])
                # Algorithm 3: the ratio is clipped to [-1, 1] element by element.
                ratio = state["momentum"] / (group["gamma"] * state["hessian"]).clamp(min=group["eps"])
                p.sub_(ratio.clamp(-1, 1), alpha=group["lr"])


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Sophia]
