"""What all sampling strategies share."""

from dataclasses import dataclass
from typing import Any

from harness import ConfigError, Decoding


class Sampler(Decoding):
    """Draws from the model's distribution after `temperature` and whatever a subclass cuts off."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Decoding.Config):
        temperature: float = 1.0
        """Divides the logits; below 1 sharpens the distribution."""

        def __post_init__(self) -> None:
            if self.temperature <= 0:
                raise ConfigError(
                    f"decoding.temperature={self.temperature} must be above 0; for 0 use decoding=greedy"
                )

    config: Config

    def cut(self) -> dict[str, Any]:
        """Arguments of transformers' generate that cut off a part of the distribution."""
        return {}

    def options(self) -> dict[str, Any]:
        temperature = float(self.config.temperature)
        return {"do_sample": True, "top_k": 0, "temperature": temperature, **self.cut()}


def within(key: str, value: float, low: float, high: float) -> None:
    """Refuse an option outside the open interval from `low` to the closed end `high`."""
    if not low < value <= high:
        raise ConfigError(f"decoding.{key}={value} must be above {low} and at most {high}")
