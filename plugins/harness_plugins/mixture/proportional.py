"""Proportional mixture: each domain is drawn as often as it is large, up to a cap."""

from collections.abc import Mapping
from dataclasses import dataclass

from harness import Method, Mixture, check_limits, hookimpl


class Proportional(Mixture):
    """Examples-proportional mixing with a limit on how large a domain counts.

    Paper: Raffel et al. 2019, arXiv:1910.10683, section 3.5.2
    """

    name = "proportional"

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixture.Config):
        cap: int | None = None
        """Tokens above which a domain counts as no larger; null sets no limit."""

        def __post_init__(self) -> None:
            check_limits(self, "mixture", "cap")

    config: Config

    def weights(self, num_tokens: Mapping[str, int]) -> dict[str, float]:
        sizes = {name: min(n, self.config.cap or n) for name, n in num_tokens.items()}
        total = sum(sizes.values())
        return {name: size / total for name, size in sizes.items()}


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Proportional]
