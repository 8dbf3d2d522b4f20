"""Top-k sampling: draws among the k likeliest tokens."""

from dataclasses import dataclass
from typing import Any

from harness import Method, hookimpl
from harness_plugins.decoding._sampling import Sampler, within


class TopK(Sampler):
    """Draws among the `top_k` likeliest tokens.

    Paper: Fan et al. 2018, arXiv:1805.04833
    """

    name = "top_k"

    @dataclass(frozen=True, kw_only=True)
    class Config(Sampler.Config):
        top_k: int = 50
        """Tokens kept."""

        def __post_init__(self) -> None:
            super().__post_init__()
            within("top_k", self.top_k, 0, float("inf"))

    config: Config

    def cut(self) -> dict[str, Any]:
        return {"top_k": self.config.top_k}


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [TopK]
