"""Staged curriculum: basic skills first, the target skill last."""

from dataclasses import dataclass, field

import numpy as np

from harness import ConfigError, Curriculum, Method, SampleReader, hookimpl


class Staged(Curriculum):
    """Samples of the first domains, then the next, with a share of each kept for a later mix.

    Paper: Roziere et al. 2023, arXiv:2308.12950 (Code Llama); Azerbayev et al. 2023, arXiv:2310.10631
    (Llemma keeps 5 % general data as a regulariser)
    Raises: ConfigError if a name is no domain of the corpus
    """

    name = "staged"

    @dataclass(frozen=True, kw_only=True)
    class Config(Curriculum.Config):
        domains: list[str] = field(default_factory=list)
        """Order of the domains; those left out come first, in the order drawn."""
        keep_share: float = 0.05
        """Share of each stage's samples that are spread over all later stages (0 to 1)."""

        def __post_init__(self) -> None:
            if not 0 <= self.keep_share < 1:
                raise ConfigError(f"curriculum.keep_share={self.keep_share} must lie in [0, 1)")

    config: Config

    @classmethod
    def trial(cls) -> Config:
        return cls.Config(domains=["docs", "code"])

    def order(self, order_R: np.ndarray, *, domains_S: np.ndarray, texts: SampleReader) -> np.ndarray:
        known = sorted(set(domains_S.tolist()))
        unknown = sorted(set(self.config.domains) - set(known))
        if unknown:
            raise ConfigError(f"curriculum.domains names {unknown}; the corpus has {known}")
        rank = {name: 1 + place for place, name in enumerate(self.config.domains)}
        stage_S = np.array([rank.get(name, 0) for name in known])[np.searchsorted(known, domains_S)]
        stage_R = stage_S[order_R]
        place_R = np.argsort(np.argsort(stage_R, kind="stable"), kind="stable").astype(np.float64)
        if self.config.keep_share:
            every = round(1 / self.config.keep_share)
            for stage in sorted(set(stage_R.tolist()))[:-1]:
                members = np.flatnonzero(stage_R == stage)
                kept = members[every - 1 :: every]
                first = place_R[members].max() + 1
                place_R[kept] = np.linspace(first, len(order_R), len(kept), endpoint=False) - 0.5
        return order_R[np.argsort(place_R, kind="stable")]


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Staged]
