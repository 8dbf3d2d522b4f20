"""SOAP: Adam in the eigenbasis of Shampoo's preconditioners."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness import Method, Optimizer, check_counts, hookimpl, trained_parameters


class Soap(Optimizer):
    """Adam that runs in slowly changing eigenbases of the gradient's row and column moments.

    Paper: Vyas et al. 2024, arXiv:2409.11321, algorithm 3
    State: Adam's two moments, and for each side of a matrix its moment and eigenbasis
    Differs: the first step only fills the moments, as the authors' code has it
    Error: directions without any gradient so far have no order; there, implementations part by rounding
    """

    name = "soap"
    conflicts = frozenset({"sharded_weights"})

    @dataclass(frozen=True, kw_only=True)
    class Config(Optimizer.Config):
        weight_decay: float = 0.01
        """Decoupled decay of matrices."""
        beta1: float = 0.95
        """Decay of the first moment."""
        beta2: float = 0.95
        """Decay of the second moment and of the preconditioners."""
        eps: float = 1e-8
        """Added to the root of the second moment."""
        every: int = 10
        """Steps between updates of the eigenbases."""
        max_dim: int = 2048
        """Sides longer than this keep the identity."""

        def __post_init__(self) -> None:
            super().__post_init__()
            check_counts(self, "optimizer", "every", "max_dim")

    config: Config

    def build(self, model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        names = ("beta1", "beta2", "eps", "every", "max_dim")
        options = {name: getattr(self.config, name) for name in names}
        return _Soap(self.groups(model), {"lr": learning_rate, **options})

    def state_bytes(self, model: nn.Module) -> int:
        """Adam's, and two square matrices for each side that is preconditioned."""
        group = {"max_dim": self.config.max_dim}
        squares = (
            p.shape[side] ** 2 * p.element_size()
            for p in trained_parameters(model)
            for side in sides(p, group)
        )
        return super().state_bytes(model) + 2 * sum(squares)


class _Soap(torch.optim.Optimizer):
    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    if self.state[p]:
                        self._update(p, p.grad, group)
                    else:
                        self._start(p, p.grad, group)

    def _start(self, p: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        # Each weight's own, as in the authors' code: one whose first gradient comes late is corrected anew.
        state["steps"] = 0
        state["mean"], state["square"] = torch.zeros_like(p), torch.zeros_like(p)
        for side in sides(p, group):
            moment = second_moment(gradient, side) * (1 - group["beta2"])
            state[f"moment{side}"] = moment
            # Largest eigenvalue first.
            state[f"basis{side}"] = torch.linalg.eigh(moment)[1].flip(1)

    def _update(self, p: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        state["steps"] += 1
        step = state["steps"]
        state["mean"].lerp_(gradient, 1 - group["beta1"])
        state["square"].lerp_(rotated(gradient, state).square(), 1 - group["beta2"])
        update = rotated(state["mean"], state) / (state["square"].sqrt() + group["eps"])
        correction = (1 - group["beta2"] ** step) ** 0.5 / (1 - group["beta1"] ** step)
        p.sub_(rotated(update, state, back=True), alpha=group["lr"] * correction)
        p.mul_(1 - group["lr"] * group["weight_decay"])
        for side in sides(p, group):
            state[f"moment{side}"].lerp_(second_moment(gradient, side), 1 - group["beta2"])
        if step % group["every"] == 0:
            for side in sides(p, group):
                self._turn(state, side)

    def _turn(self, state: dict[str, Tensor], side: int) -> None:
        # One power iteration and a QR step, algorithm 4; the second moment follows the new order.
        moved = state[f"moment{side}"] @ state[f"basis{side}"]
        order = (state[f"basis{side}"] * moved).sum(0).argsort(descending=True)
        state["square"] = state["square"].index_select(side, order)
        state[f"basis{side}"] = torch.linalg.qr(moved.index_select(1, order))[0]


def sides(p: Tensor, group: dict[str, Any]) -> list[int]:
    """The dimensions of a matrix that are preconditioned; vectors have none."""
    return [side for side, size in enumerate(p.shape) if p.ndim > 1 and size <= group["max_dim"]]


def second_moment(gradient: Tensor, side: int) -> Tensor:
    """Sum of outer products along one dimension."""
    flat = gradient.movedim(side, 0).flatten(1)
    return flat @ flat.T


def rotated(value: Tensor, state: dict[str, Tensor], *, back: bool = False) -> Tensor:
    """A tensor in the eigenbases, or back from them."""
    for side in range(value.ndim):
        basis = state.get(f"basis{side}")
        if basis is not None:
            matrix = basis if back else basis.T
            value = torch.tensordot(matrix, value.movedim(side, 0), 1).movedim(0, side)
    return value


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Soap]
