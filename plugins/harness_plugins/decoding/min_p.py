"""Min-p sampling: a probability threshold relative to the likeliest token."""

from dataclasses import dataclass
from typing import Any

from harness import Method, hookimpl
from harness_plugins.decoding._sampling import Sampler, within


class MinP(Sampler):
    """Cuts tokens less likely than `min_p` times the likeliest one.

    Paper: Nguyen et al. 2024, arXiv:2407.01082
    """

    name = "min_p"

    @dataclass(frozen=True, kw_only=True)
    class Config(Sampler.Config):
        min_p: float = 0.1
        """Share of the highest probability that a token must reach (0 to 1)."""

        def __post_init__(self) -> None:
            super().__post_init__()
            within("min_p", self.min_p, 0, 1)

    config: Config

    def cut(self) -> dict[str, Any]:
        return {"min_p": self.config.min_p}


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [MinP]
