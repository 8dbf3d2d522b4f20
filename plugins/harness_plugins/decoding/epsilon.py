"""Epsilon sampling: a fixed probability threshold."""

from dataclasses import dataclass
from typing import Any

from harness import ConfigError, Method, hookimpl
from harness_plugins.decoding._sampling import Sampler


class Epsilon(Sampler):
    """Cuts tokens less likely than `epsilon`, but for the likeliest one.

    Paper: Hewitt et al. 2022, arXiv:2210.15191
    Raises: ConfigError if epsilon lies outside (0, 1)
    """

    name = "epsilon"

    @dataclass(frozen=True, kw_only=True)
    class Config(Sampler.Config):
        epsilon: float = 3e-4
        """Probability that a token must reach (0 to 1)."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if not 0 < self.epsilon < 1:
                raise ConfigError(f"decoding.epsilon={self.epsilon} must be above 0 and below 1")

    config: Config

    def cut(self) -> dict[str, Any]:
        return {"epsilon_cutoff": self.config.epsilon}


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Epsilon]
