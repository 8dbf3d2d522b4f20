"""Top-h sampling: the likeliest tokens that carry a share of the entropy."""

from dataclasses import dataclass
from typing import Any

from harness import Method, hookimpl
from harness_plugins.decoding._sampling import Sampler, within


class TopH(Sampler):
    """Keeps the likeliest tokens while they carry at most a share `top_h` of the distribution's entropy.

    Paper: Baghaei Potraghloo et al. 2025, arXiv:2509.02510
    Differs: as in transformers, kept tokens count with their terms of the whole entropy, not with that of the
    distribution they would make alone, and both are taken over the 100 likeliest tokens
    """

    name = "top_h"

    @dataclass(frozen=True, kw_only=True)
    class Config(Sampler.Config):
        top_h: float = 0.4
        """Share of the entropy that kept tokens may carry (0 to 1)."""

        def __post_init__(self) -> None:
            super().__post_init__()
            within("top_h", self.top_h, 0, 1)

    config: Config

    def cut(self) -> dict[str, Any]:
        return {"top_h": self.config.top_h}


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [TopH]
