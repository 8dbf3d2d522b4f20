"""Reward-ranked fine-tuning: tuning on the best of the current policy's samples, again and again."""

from __future__ import annotations

from dataclasses import dataclass

from harness import Method, hookimpl

from ._best import Best, BestConfig


class RAFT(Best):
    """Samples of the policy as it is, ranked by reward within each prompt, the best ones learned.

    Paper: Dong et al. 2023, arXiv:2304.06767, algorithm 1
    """

    name = "raft"

    @dataclass(frozen=True, kw_only=True)
    class Config(BestConfig):
        """Number of samples."""


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [RAFT]
