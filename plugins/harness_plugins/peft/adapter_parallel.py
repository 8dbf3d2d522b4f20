"""Parallel adapters: a bottleneck beside the feed-forward layer."""

from __future__ import annotations

from dataclasses import dataclass

from harness import Kept, Method, hookimpl

from ._bottleneck import BottleneckConfig, BottleneckPeft, Parallel


class AdapterParallel(BottleneckPeft):
    """A bottleneck that reads what the feed-forward layer reads, and adds to what it gives.

    Paper: He et al. 2022, arXiv:2110.04366, section 4.6
    """

    name = "adapter_parallel"
    kept = Kept(inputs=False, skipped=1)  # the first adapter stands at the first block's end
    usual = ("mlp",)
    wrapper = Parallel

    @dataclass(frozen=True, kw_only=True)
    class Config(BottleneckConfig):
        """Width and targets."""


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [AdapterParallel]
