"""Tensor parallelism: heads and hidden units split over processes."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from harness import Method, Problem, hookimpl
from harness_plugins.parallelism._mesh import Grid
from harness_plugins.parallelism._processes import alone


class TensorParallel(Grid):
    """Megatron's split of attention by heads and of the feed-forward layer by hidden units (DTensor).

    Paper: Shoeybi et al. 2019, arXiv:1909.08053, section 3
    Differs: embedding and head stay whole on every process
    """

    name = "tensor"

    @classmethod
    def check(cls, config: Any, cell: Any, meta_model: nn.Module | None) -> Iterable[Problem]:
        yield from alone(config)
        yield from cls.problems(cell, meta_model, pipeline=1, tensor=config.world_size)

    def sizes(self) -> tuple[int, int, int]:
        return 1, 1, self.config.world_size


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [TensorParallel]
