"""Muon: orthogonalised momentum for hidden matrices, AdamW for the rest."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness import Method, Optimizer, hookimpl, trained_parameters

COEFFICIENTS = (3.4445, -4.775, 2.0315)
"""Of the quintic iteration, chosen for the steepest slope at 0."""


class Muon(Optimizer):
    """Momentum whose singular values are set near 1; embeddings, head and vectors take AdamW.

    Paper: Liu et al. 2025, arXiv:2502.16982, section 2.2 (update scale 0.2 sqrt(max(rows, columns)))
    State: one momentum buffer for hidden matrices, two moments for the rest
    Error: the iteration runs in bfloat16; singular values end in about [0.7, 1.2]
    """

    name = "muon"
    conflicts = frozenset({"sharded_weights"})

    @dataclass(frozen=True, kw_only=True)
    class Config(Optimizer.Config):
        beta: float = 0.95
        """Nesterov momentum of hidden matrices."""
        iterations: int = 5
        """Newton-Schulz steps."""
        beta1: float = 0.9
        """First moment's decay of the rest."""
        beta2: float = 0.95
        """Second moment's decay of the rest."""
        eps: float = 1e-8
        """Added to the root of the rest's second moment."""

    config: Config

    def build(self, model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        outer = outer_weights(model)
        groups: list[dict[str, Any]] = []
        for group in self.groups(model):
            hidden = [p for p in group["params"] if p.ndim == 2 and id(p) not in outer]
            rest = [p for p in group["params"] if p.ndim != 2 or id(p) in outer]
            for params, orthogonal in ((hidden, True), (rest, False)):
                if params:
                    groups.append({**group, "params": params, "orthogonal": orthogonal})
        for group in groups:
            group |= {"beta": self.config.beta, "iterations": self.config.iterations}
        betas = (self.config.beta1, self.config.beta2)
        return _Muon(groups, lr=learning_rate, betas=betas, eps=self.config.eps, fused=True)

    def state_bytes(self, model: nn.Module) -> int:
        """One tensor for hidden matrices, two for the rest."""
        outer = outer_weights(model)
        return sum(
            (1 if p.ndim == 2 and id(p) not in outer else 2) * p.numel() * p.element_size()
            for p in trained_parameters(model)
        )


def outer_weights(model: nn.Module) -> set[int]:
    """Identities of the embeddings' and the output head's weights."""
    outer = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    head = getattr(model, "get_output_embeddings", lambda: None)()
    head = getattr(model, "lm_head", None) if head is None else head
    return outer if head is None else outer | {id(head.weight)}


class _Muon(torch.optim.AdamW):
    def step(self, closure: Any = None) -> Any:
        everything = self.param_groups
        self.param_groups = [group for group in everything if not group["orthogonal"]]
        if self.param_groups:
            super().step(closure)
        self.param_groups = everything
        with torch.no_grad():
            for group in everything:
                if group["orthogonal"]:
                    self._step_hidden(group)

    def _step_hidden(self, group: dict[str, Any]) -> None:
        for p in group["params"]:
            if p.grad is None:
                continue
            state = self.state[p]
            if not state:
                # AdamW asks every state for its step when it is loaded.
                state |= {"momentum": torch.zeros_like(p), "step": torch.zeros(())}
            state["momentum"].lerp_(p.grad, 1 - group["beta"])
            ahead = p.grad.lerp(state["momentum"], group["beta"])
            update = orthogonalised(ahead, group["iterations"])
            p.mul_(1 - group["lr"] * group["weight_decay"])
            p.add_(update.to(p.dtype), alpha=-group["lr"] * 0.2 * max(p.shape) ** 0.5)


def orthogonalised(matrix: Tensor, iterations: int) -> Tensor:
    """The nearest semi-orthogonal matrix, roughly, by the quintic Newton-Schulz iteration."""
    a, b, c = COEFFICIENTS
    x = matrix.bfloat16()
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(iterations):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Muon]
