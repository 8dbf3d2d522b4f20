"""Typical sampling: draws among tokens about as surprising as the distribution expects."""

from dataclasses import dataclass
from typing import Any

from harness import Method, hookimpl
from harness_plugins.decoding._sampling import Sampler, within


class Typical(Sampler):
    """Keeps the tokens whose surprise is nearest the entropy, until they hold `mass`.

    Paper: Meister et al. 2023, arXiv:2202.00666
    """

    name = "typical"

    @dataclass(frozen=True, kw_only=True)
    class Config(Sampler.Config):
        mass: float = 0.95
        """Probability the kept tokens hold together (0 to 1)."""

        def __post_init__(self) -> None:
            super().__post_init__()
            within("mass", self.mass, 0, 1)

    config: Config

    def cut(self) -> dict[str, Any]:
        return {"typical_p": self.config.mass}


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Typical]
