"""Mixture by hand: the shares that are stated."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness import ConfigError, Method, Mixture, hookimpl


class Weights(Mixture):
    """Stated weights, scaled to sum 1; equal ones where none are stated.

    Raises: ConfigError if a weight is negative, all are 0, or a name is no domain of the corpus
    """

    name = "weights"

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixture.Config):
        weights: dict[str, float] = field(default_factory=dict)
        """Domain to weight, any positive scale; domains left out get 0; empty for equal weights."""

        def __post_init__(self) -> None:
            if self.weights and (min(self.weights.values()) < 0 or sum(self.weights.values()) <= 0):
                raise ConfigError(f"mixture.weights={dict(self.weights)} must be at least 0 and not all 0")

    config: Config

    @classmethod
    def trial(cls, domains: Sequence[str]) -> Config:
        return cls.Config(weights={name: 1.0 + place for place, name in enumerate(domains)})

    def weights(self, num_tokens: Mapping[str, int]) -> dict[str, float]:
        stated = dict(self.config.weights) or dict.fromkeys(num_tokens, 1.0)
        unknown = sorted(set(stated) - set(num_tokens))
        if unknown:
            raise ConfigError(f"mixture.weights names {unknown}; the corpus has {sorted(num_tokens)}")
        total = sum(stated.values())
        return {name: stated.get(name, 0.0) / total for name in num_tokens}


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Weights]
