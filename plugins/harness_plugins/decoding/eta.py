"""Eta sampling: a probability threshold that follows the distribution's entropy."""

from dataclasses import dataclass
from typing import Any

from harness import Method, hookimpl
from harness_plugins.decoding._sampling import Sampler, within


class Eta(Sampler):
    """Cuts tokens below min(epsilon, sqrt(epsilon) * exp(-entropy)).

    Paper: Hewitt et al. 2022, arXiv:2210.15191
    """

    name = "eta"

    @dataclass(frozen=True, kw_only=True)
    class Config(Sampler.Config):
        epsilon: float = 3e-4
        """Threshold of a flat distribution (0 to 1)."""

        def __post_init__(self) -> None:
            super().__post_init__()
            within("epsilon", self.epsilon, 0, 1)

    config: Config

    def cut(self) -> dict[str, Any]:
        return {"eta_cutoff": self.config.epsilon}


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Eta]
