"""Beam search: keeps the likeliest sequences instead of the likeliest next token."""

from dataclasses import dataclass
from typing import Any

from harness import ConfigError, Decoding, Method, hookimpl, signed


class Beam(Decoding):
    """Keeps `num_beams` sequences and returns the one of highest length-normalised log-probability.

    Paper: Graves 2012, arXiv:1211.3711; length penalty of Wu et al. 2016, arXiv:1609.08144
    Differs: normalises by length ** length_penalty, as transformers does, not by ((5 + length) / 6) ** a
    """

    name = "beam"

    @dataclass(frozen=True, kw_only=True)
    class Config(Decoding.Config):
        num_beams: int = 4
        """Sequences kept at every step."""
        length_penalty: float = signed(1.0)
        """Exponent of the length that a log-probability is divided by; above 0 favours longer answers."""
        early_stopping: bool = False
        """Whether to stop once `num_beams` sequences have ended."""

        def __post_init__(self) -> None:
            if self.num_beams < 2:
                raise ConfigError(
                    f"decoding.num_beams={self.num_beams} must be at least 2; 1 is decoding=greedy"
                )

    config: Config

    @classmethod
    def at_once(cls, config: Any) -> tuple[str, int]:
        return "num_beams", int(config.num_beams)

    def options(self) -> dict[str, Any]:
        config = self.config
        return {
            "do_sample": False,
            "num_beams": config.num_beams,
            "length_penalty": config.length_penalty,
            "early_stopping": config.early_stopping,
        }


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Beam]
