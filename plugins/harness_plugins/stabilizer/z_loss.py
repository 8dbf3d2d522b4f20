"""z-loss: keeps the softmax's normaliser near 1."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness import ConfigError, LossTerm, Method, Stabilizer, hookimpl


class ZLoss(Stabilizer):
    """Adds weight * log(Z)^2 to the loss, Z being the sum of the exponentiated logits.

    Paper: Chowdhery et al. 2022, arXiv:2204.02311, section 5
    Raises: ConfigError if weight is not positive
    """

    name = "z_loss"
    changes = frozenset({"loss"})
    after = frozenset({"loss"})
    logit_copies = 2  # in the backward pass: the softmax, and the gradient

    @dataclass(frozen=True, kw_only=True)
    class Config(Stabilizer.Config):
        weight: float = 1e-4
        """Factor on the mean of log(Z)^2 over predicted tokens."""

        def __post_init__(self) -> None:
            if not self.weight > 0:
                raise ConfigError(f"stabilizer.z_loss.weight={self.weight} must be positive")

    config: Config

    def loss_terms(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> list[LossTerm]:
        log_z_BT = outputs["logits"].float().logsumexp(-1)
        labels_BT = batch.get("labels_BT")
        if labels_BT is None:
            mean = log_z_BT.square().mean()
        else:
            learned_BT = labels_BT != -100
            mean = (log_z_BT.square() * learned_BT).sum() / learned_BT.sum().clamp(min=1)
        return [LossTerm(name="z_loss", value=self.config.weight * mean)]


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [ZLoss]
