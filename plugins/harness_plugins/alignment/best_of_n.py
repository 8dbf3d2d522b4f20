"""Best of n: tuning on the best of several samples of the starting policy."""

from __future__ import annotations

from dataclasses import dataclass

from harness import Method, hookimpl

from ._best import Best, BestConfig


class BestOfN(Best):
    """Rejection sampling from the policy as it was, then supervised tuning.

    Paper: Nakano et al. 2021, arXiv:2112.09332 (section 3.3)
    """

    name = "best_of_n"

    @dataclass(frozen=True, kw_only=True)
    class Config(BestConfig):
        """Number of samples."""

    def samples_from_start(self) -> bool:
        return True


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [BestOfN]
