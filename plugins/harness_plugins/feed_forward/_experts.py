"""What mixtures of experts share: a router beside its experts, and the loss that keeps their loads even."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness import ConfigError, FeedForward, LossTerm, ModelSpec

MAX_EXPERTS = 4096
"""More than any model has that computes each expert as a layer (Switch-C, arXiv:2101.03961: 2,048)."""


class Router(nn.Linear):
    """A linear layer in single precision at least, so that rounding turns few choices.

    A layer that is called, so that adapters act on it and quantizers see what it multiplies.
    Paper: Fedus et al. 2021, arXiv:2101.03961, section 2.4
    """

    def forward(self, x_MD: Tensor) -> Tensor:
        wide = torch.promote_types(x_MD.dtype, torch.float32)
        return F.linear(x_MD.to(wide), self.weight.to(wide))


class Experts(FeedForward):
    """A variant says of which class the experts are, and where its router sends a token.

    Shapes: M tokens, E experts, K experts a token
    State: the load-balancing term of the last forward
    Raises: ConfigError for fewer than two experts
    """

    changes = frozenset({"loss"})
    expert: ClassVar[type[nn.Module]]
    """Of a spec, the network D -> D that a token goes through."""

    @dataclass(frozen=True, kw_only=True)
    class Config(FeedForward.Config):
        num_experts: int = 4
        """Experts (E); parameters grow with them, computation does not."""
        balance_weight: float = 0.01
        """Weight of the load-balancing loss."""

        def __post_init__(self) -> None:
            if not 2 <= self.num_experts <= MAX_EXPERTS:
                raise ConfigError(
                    f"feed_forward.num_experts={self.num_experts} must lie between 2 and {MAX_EXPERTS}"
                )

    config: Config

    def build(self, spec: ModelSpec) -> None:
        self.router = Router(spec.dim, self.config.num_experts, bias=False)
        self.experts = nn.ModuleList(self.expert(spec) for _ in range(self.config.num_experts))
        self._balance: Tensor | None = None

    def balance(self, probability_ME: Tensor, choice_MK: Tensor) -> Tensor:
        """E sum_i f_i P_i: choices a token times mean probability; K when balanced.

        Paper: Fedus et al. 2021, arXiv:2101.03961, eq. 4
        """
        chosen_MKE = F.one_hot(choice_MK, self.config.num_experts).to(probability_ME.dtype)
        count_E = chosen_MKE.sum(dim=1).mean(dim=0)
        return self.config.num_experts * (count_E * probability_ME.mean(dim=0)).sum()

    def loss_terms(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> list[LossTerm]:
        if self._balance is None:
            return []
        return [LossTerm(name=f"load_balance.{self.layer}", value=self.config.balance_weight * self._balance)]
