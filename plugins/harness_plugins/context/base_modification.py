"""Base modification: another base for all rotations."""

from dataclasses import dataclass
from typing import Any

from harness import ConfigError, Context, Method, Rotary, hookimpl


class BaseModification(Context):
    """Replaces the rotary base, then trains on (Code Llama and long-context Llama 2 went to 1e6 and 5e5).

    Frequencies that are scaled already (Llama 3's) keep that scaling.

    Paper: Xiong et al. 2023, arXiv:2309.16039, section 2.1
    Raises: ConfigError if base is not above 1
    """

    name = "base_modification"
    trains = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Context.Config):
        base: float = 500000.0
        """New base of the wavelengths, in tokens."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.base <= 1:
                raise ConfigError(f"context.base={self.base} must be above 1")

    config: Config

    def scale(self, rotary: Rotary, length: int) -> Rotary:
        return rotary.rebased(self.config.base)

    def rope_parameters(self, rotary: Rotary) -> dict[str, Any]:
        return {"rope_type": "default", "rope_theta": self.config.base}


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [BaseModification]
