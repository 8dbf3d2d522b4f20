"""Mixture of denoisers: short spans, extreme spans and prefix modeling, each with its mode token."""

from dataclasses import dataclass

import numpy as np

from harness import ConfigError, Example, Method, Objective, hookimpl
from harness_plugins.objective._spans import check_spans, corrupted, fitted, joined, noise_mask

REGULAR = ((3.0, 0.15), (8.0, 0.15))
"""R-denoisers: (mean span, density)."""
EXTREME = ((3.0, 0.5), (8.0, 0.5), (64.0, 0.15), (64.0, 0.5))
"""X-denoisers."""


class MixtureOfDenoisers(Objective):
    """UL2: seven denoisers, announced to the model by a token [R], [X] or [S] in front.

    Paper: Tay et al. 2022, arXiv:2205.05131, table 1
    Differs: the mode tokens are the last three sentinels
    Raises: ConfigError if the shares do not sum to 1, or a denoiser needs more than max_spans
    """

    name = "mixture_of_denoisers"

    @dataclass(frozen=True, kw_only=True)
    class Config(Objective.Config):
        regular_share: float = 2 / 7
        """Share of examples with short spans (R)."""
        extreme_share: float = 4 / 7
        """Share of examples with long spans or high density (X)."""
        sequential_share: float = 1 / 7
        """Share of examples that continue a prefix (S)."""
        max_spans: int = 350
        """Spans of one example at most; 2,048 tokens need 341, of 3 tokens at density 0.5."""

        def __post_init__(self) -> None:
            shares = (self.regular_share, self.extreme_share, self.sequential_share)
            if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
                raise ConfigError(
                    "objective.regular_share, extreme_share and sequential_share must not be negative and "
                    f"sum to 1, not {sum(shares):g}"
                )
            if self.max_spans < 1:
                raise ConfigError(f"objective.max_spans={self.max_spans} must be at least 1")

    config: Config

    def num_sentinels(self) -> int:
        return self.config.max_spans + 4

    def example(
        self,
        window_T: np.ndarray,
        rng: np.random.Generator,
        *,
        encoder: bool,
        sentinels: np.ndarray,
    ) -> Example:
        spans, modes = sentinels[:-3], sentinels[-3:]
        shares = (self.config.regular_share, self.config.extreme_share, self.config.sequential_share)
        mode = int(rng.choice(3, p=np.array(shares) / sum(shares)))
        # One place of the window goes to the mode token.
        tokens_T = window_T[:-1]
        for mean_span, density in (*REGULAR, *EXTREME):  # whichever is drawn, so that none is found late
            shape = {"density": density, "mean_span": mean_span}
            length = fitted(len(tokens_T), encoder=encoder, **shape)
            check_spans(length, max_spans=self.config.max_spans, **shape)
        if mode == 2:
            length = int(rng.integers(1, max(2, round(0.5 * len(tokens_T)))))
            source_S, target_T = tokens_T[:-length], tokens_T[-length:]
            if encoder:
                target_T = np.concatenate([spans[:1], target_T])
        else:
            mean_span, density = (REGULAR, EXTREME)[mode][int(rng.integers(len((REGULAR, EXTREME)[mode])))]
            shape = {"density": density, "mean_span": mean_span}
            tokens_T = tokens_T[: fitted(len(tokens_T), encoder=encoder, **shape)]
            noise_T = noise_mask(len(tokens_T), rng=rng, max_spans=len(spans) - 1, **shape)
            source_S, target_T = corrupted(tokens_T, noise_T, spans)
        return joined(np.concatenate([modes[mode : mode + 1], source_S]), target_T, encoder=encoder)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [MixtureOfDenoisers]
