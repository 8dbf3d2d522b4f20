"""Schedule-free AdamW: averaging in place of a learning-rate schedule."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness import ConfigError, Method, Optimizer, Problem, hookimpl


class ScheduleFree(Optimizer):
    """AdamW whose gradients are taken between the iterate and its average; the average is the result.

    Paper: Defazio et al. 2024, arXiv:2405.15682, algorithm 1
    State: the iterate z and the second moment; the model holds y in training and the average x afterwards
    """

    name = "schedule_free"
    conflicts = frozenset({"split_optimizer"})

    @dataclass(frozen=True, kw_only=True)
    class Config(Optimizer.Config):
        beta1: float = 0.9
        """Share of the average in the point where gradients are taken."""
        beta2: float = 0.999
        """Decay of the second moment."""
        eps: float = 1e-8
        """Added to the root of the second moment."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.beta1 == 0:
                raise ConfigError("optimizer.beta1=0 leaves schedule_free nothing to average; use adamw")

    config: Config

    @classmethod
    def check(cls, config: Any, cell: Any, meta_model: nn.Module | None) -> Iterable[Problem]:
        schedule = cell.choice("schedule")
        if schedule is not None and schedule.method.name != "constant":
            yield Problem(
                where="schedule",
                message=f"schedule_free is meant for schedule=constant, not {schedule.method.name}",
                fatal=False,
            )

    def build(self, model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        options = {name: getattr(self.config, name) for name in ("beta1", "beta2", "eps")}
        start = {"steps": 0, "weight_sum": 0.0, "largest_lr": 0.0}
        return _ScheduleFree(self.groups(model), {"lr": learning_rate, **options, **start})

    def finish(self, optimizer: torch.optim.Optimizer) -> None:
        assert isinstance(optimizer, _ScheduleFree)
        optimizer.average()


class _ScheduleFree(torch.optim.Optimizer):
    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            group["steps"] += 1
            group["largest_lr"] = max(group["lr"], group["largest_lr"])
            weight = group["largest_lr"] ** 2
            group["weight_sum"] += weight
            share = weight / group["weight_sum"] if group["weight_sum"] else 0.0
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, p.grad, group, share)

    def _update(self, y: Tensor, gradient: Tensor, group: dict[str, Any], share: float) -> None:
        state, lr, beta1, beta2 = self.state[y], group["lr"], group["beta1"], group["beta2"]
        if not state:
            state["z"], state["square"] = y.clone(), torch.zeros_like(y)
        state["square"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        correction = 1 - beta2 ** group["steps"]
        update = gradient / ((state["square"] / correction).sqrt() + group["eps"])
        update = update.add(y, alpha=group["weight_decay"])
        # y = (1 - beta1) z + beta1 x, moved without keeping x.
        y.lerp_(state["z"], share)
        y.add_(update, alpha=lr * (beta1 * (1 - share) - 1))
        state["z"].sub_(update, alpha=lr)

    @torch.no_grad()
    def average(self) -> None:
        """Put x, the average, on the model: x = y + (1 - 1 / beta1) (z - y)."""
        for group in self.param_groups:
            for p in group["params"]:
                if "z" in self.state[p]:
                    p.lerp_(self.state[p]["z"], 1 - 1 / group["beta1"])


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [ScheduleFree]
