"""Nucleus sampling: draws among the likeliest tokens that together hold a share p."""

from dataclasses import dataclass
from typing import Any

from harness import Method, hookimpl
from harness_plugins.decoding._sampling import Sampler, within


class TopP(Sampler):
    """Draws from the smallest set of tokens whose probability reaches `top_p`.

    Paper: Holtzman et al. 2020, arXiv:1904.09751
    """

    name = "top_p"

    @dataclass(frozen=True, kw_only=True)
    class Config(Sampler.Config):
        top_p: float = 0.9
        """Probability the kept tokens hold together (0 to 1)."""

        def __post_init__(self) -> None:
            super().__post_init__()
            within("top_p", self.top_p, 0, 1)

    config: Config

    def cut(self) -> dict[str, Any]:
        return {"top_p": self.config.top_p}


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [TopP]
