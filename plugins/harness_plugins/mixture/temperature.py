"""Temperature mixture: between sizes as they are and all domains alike."""

from collections.abc import Mapping
from dataclasses import dataclass

from harness import ConfigError, Method, Mixture, check_limits, hookimpl


class Temperature(Mixture):
    """Sizes to the power 1/T: T = 1 is proportional, large T is uniform.

    Paper: Raffel et al. 2019, arXiv:1910.10683, section 3.5.2
    """

    name = "temperature"

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixture.Config):
        temperature: float = 2.0
        """T, at least 1."""
        cap: int | None = None
        """Tokens above which a domain counts as no larger; null sets no limit."""

        def __post_init__(self) -> None:
            if self.temperature < 1:
                raise ConfigError(f"mixture.temperature={self.temperature} must be at least 1")
            check_limits(self, "mixture", "cap")

    config: Config

    def weights(self, num_tokens: Mapping[str, int]) -> dict[str, float]:
        raised = {
            name: min(n, self.config.cap or n) ** (1 / self.config.temperature)
            for name, n in num_tokens.items()
        }
        total = sum(raised.values())
        return {name: size / total for name, size in raised.items()}


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Temperature]
