"""Prefix language modeling: predict the rest of a window from a prefix that is read in both directions."""

from dataclasses import dataclass

import numpy as np

from harness import ConfigError, Example, Method, Objective, hookimpl


class PrefixLanguageModeling(Objective):
    """Splits the window at a random point; only tokens after it are predicted.

    Paper: Raffel et al. 2019, arXiv:1910.10683, section 3.2.3
    Raises: ConfigError if the shares are not in order
    """

    name = "prefix_language_modeling"

    @dataclass(frozen=True, kw_only=True)
    class Config(Objective.Config):
        min_share: float = 0.1
        """Shortest prefix as a share of the window."""
        max_share: float = 0.9
        """Longest prefix as a share of the window."""

        def __post_init__(self) -> None:
            if not 0 <= self.min_share <= self.max_share <= 1:
                raise ConfigError(
                    f"objective.min_share={self.min_share} and max_share={self.max_share} must be in order "
                    "within [0, 1]"
                )

    config: Config

    def example(
        self,
        window_T: np.ndarray,
        rng: np.random.Generator,
        *,
        encoder: bool,
        sentinels: np.ndarray,
    ) -> Example:
        share = rng.uniform(self.config.min_share, self.config.max_share)
        length = min(max(1, round(share * len(window_T))), len(window_T) - 1)
        if encoder:
            # The decoder starts from the prefix's last token.
            target_T = window_T[length - 1 :]
            return Example(
                inputs_T=target_T[:-1], labels_T=target_T[1:], source_S=window_T[:length], keeps_order=False
            )
        labels_T = window_T[1:].copy()
        labels_T[: length - 1] = -100
        return Example(inputs_T=window_T[:-1], labels_T=labels_T, prefix_length=length)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [PrefixLanguageModeling]
