"""An optimizer that updates weight by weight, each by its own gradient and state."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor


class EachWeight(torch.optim.Optimizer):
    """Calls `update` for every weight that has a gradient."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.update(p, p.grad, group)

    @abstractmethod
    def update(self, p: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        """Change a weight, and its state, by its gradient."""
        raise NotImplementedError
