"""Denoising: spans are replaced by sentinels and spelled out in the target."""

from dataclasses import dataclass

import numpy as np

from harness import ConfigError, Example, Method, Objective, hookimpl
from harness_plugins.objective._spans import corrupted, fitted, joined, noise_mask


class Denoising(Objective):
    """T5's span corruption; without an encoder, source and target are one sequence.

    Paper: Raffel et al. 2019, arXiv:1910.10683, section 3.1.4
    Differs: each span has a sentinel of its own at the vocabulary's end, in rising order
    Raises: ConfigError if the density lies outside (0, 1), spans are shorter than a token or exceed max_spans
    """

    name = "denoising"

    @dataclass(frozen=True, kw_only=True)
    class Config(Objective.Config):
        density: float = 0.15
        """Share of tokens that is hidden."""
        mean_span: float = 3.0
        """Mean length of a hidden span, in tokens."""
        max_spans: int = 100
        """Spans of one example at most; the vocabulary holds one sentinel more, which ends targets."""

        def __post_init__(self) -> None:
            if not 0 < self.density < 1:
                raise ConfigError(f"objective.density={self.density} must lie in (0, 1)")
            if self.mean_span < 1 or self.max_spans < 1:
                raise ConfigError(
                    f"objective.mean_span={self.mean_span} and max_spans={self.max_spans} must be at least 1"
                )

    config: Config

    def num_sentinels(self) -> int:
        return self.config.max_spans + 1

    def example(
        self,
        window_T: np.ndarray,
        rng: np.random.Generator,
        *,
        encoder: bool,
        sentinels: np.ndarray,
    ) -> Example:
        shape = {"density": self.config.density, "mean_span": self.config.mean_span}
        tokens_T = window_T[: fitted(len(window_T), encoder=encoder, **shape)]
        noise_T = noise_mask(len(tokens_T), rng=rng, max_spans=len(sentinels) - 1, **shape)
        return joined(*corrupted(tokens_T, noise_T, sentinels), encoder=encoder)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Denoising]
