"""Shampoo: gradients preconditioned on both sides by roots of their second moments."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness import Method, Optimizer, check_counts, hookimpl, trained_parameters


class Shampoo(Optimizer):
    """Full-matrix preconditioning for each dimension of a tensor.

    Paper: Gupta et al. 2018, arXiv:1802.09568, algorithms 1 and 2
    State: one square matrix and its inverse root for each dimension
    Error: roots by eigendecomposition in the weights' format (float32 at least)
    """

    name = "shampoo"
    conflicts = frozenset({"sharded_weights"})

    @dataclass(frozen=True, kw_only=True)
    class Config(Optimizer.Config):
        weight_decay: float = 0.0
        """Decoupled decay of matrices."""
        eps: float = 1e-6
        """Multiple of the identity that preconditioners start from."""
        every: int = 1
        """Steps between computations of the inverse roots."""
        max_dim: int = 2048
        """Dimensions larger than this are not preconditioned."""

        def __post_init__(self) -> None:
            super().__post_init__()
            check_counts(self, "optimizer", "every", "max_dim")

    config: Config

    def build(self, model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        options = {name: getattr(self.config, name) for name in ("eps", "every", "max_dim")}
        return _Shampoo(self.groups(model), {"lr": learning_rate, "steps": 0, **options})

    def state_bytes(self, model: nn.Module) -> int:
        """Two square matrices for each dimension that is preconditioned."""
        squares = (
            size**2 * p.element_size()
            for p in trained_parameters(model)
            for size in p.shape
            if size <= self.config.max_dim
        )
        return 2 * sum(squares)


class _Shampoo(torch.optim.Optimizer):
    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    update = self._preconditioned(p, group)
                    p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=group["lr"])
            group["steps"] += 1

    def _preconditioned(self, p: Tensor, group: dict[str, Any]) -> Tensor:
        gradient = update = p.grad
        assert gradient is not None
        assert update is not None
        state = self.state[p]
        for dim, size in enumerate(gradient.shape):
            if size > group["max_dim"]:
                continue
            if f"moment{dim}" not in state:
                state[f"moment{dim}"] = torch.eye(size, dtype=p.dtype, device=p.device) * group["eps"]
            flat = gradient.movedim(dim, 0).reshape(size, -1)
            state[f"moment{dim}"].addmm_(flat, flat.T)
            if group["steps"] % group["every"] == 0 or f"root{dim}" not in state:
                state[f"root{dim}"] = inverse_root(state[f"moment{dim}"], 2 * gradient.ndim)
            update = torch.tensordot(state[f"root{dim}"], update.movedim(dim, 0), 1).movedim(0, dim)
        return update


def inverse_root(matrix: Tensor, order: int) -> Tensor:
    """matrix ** (-1 / order) of a positive definite matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    smallest = values.max() * torch.finfo(matrix.dtype).eps
    root: Tensor = (vectors * values.clamp(min=smallest) ** (-1 / order)) @ vectors.T
    return root


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Shampoo]
