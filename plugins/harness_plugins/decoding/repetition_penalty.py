"""Repetition penalty: makes tokens that occurred before less likely."""

from dataclasses import dataclass
from typing import Any

from harness import ConfigError, Decoding, Method, hookimpl


class RepetitionPenalty(Decoding):
    """Divides positive logits of tokens seen before by `penalty`, multiplies negative ones; then greedy.

    Paper: Keskar et al. 2019, arXiv:1909.05858, section 4.1
    Differs: also multiplies negative logits, as transformers does; the paper divides all
    """

    name = "repetition_penalty"

    @dataclass(frozen=True, kw_only=True)
    class Config(Decoding.Config):
        penalty: float = 1.2
        """Factor; 1 changes nothing."""

        def __post_init__(self) -> None:
            if self.penalty <= 0:
                raise ConfigError(f"decoding.penalty={self.penalty} must be above 0; 1.2 is the paper's")

    config: Config

    def options(self) -> dict[str, Any]:
        return {"do_sample": False, "num_beams": 1, "repetition_penalty": float(self.config.penalty)}


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [RepetitionPenalty]
