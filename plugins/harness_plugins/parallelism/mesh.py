"""Mesh: data, pipeline and tensor parallelism at once."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from harness import ConfigError, Method, Problem, check_counts, hookimpl
from harness_plugins.parallelism._mesh import Grid, Order
from harness_plugins.parallelism._processes import alone


class Mesh(Grid):
    """A grid of processes: weights sharded along data, layers along pipeline, heads along tensor.

    Paper: Narayanan et al. 2021, arXiv:2104.04473 (BLOOM's 8 x 12 x 4)
    Raises: ConfigError if the sizes do not multiply to the number of processes
    """

    name = "mesh"

    @dataclass(frozen=True, kw_only=True)
    class Config(Grid.Config):
        tensor: int = 1
        """Processes that split heads and hidden units."""
        pipeline: int = 1
        """Processes that split layers."""
        schedule: Order = Order.one_f_one_b
        """Order of micro-batches in the pipeline."""
        num_micro_batches: int = 4
        """Pieces that a batch is passed along in, or the largest number below that divides it."""

        def __post_init__(self) -> None:
            super().__post_init__()
            check_counts(self, "parallelism", "tensor", "pipeline", "num_micro_batches")
            if self.world_size % (self.tensor * self.pipeline):
                raise ConfigError(
                    f"parallelism: {self.world_size} processes must be a multiple of "
                    f"tensor={self.tensor} x pipeline={self.pipeline}; the rest shares the batch"
                )

    config: Config

    @classmethod
    def check(cls, config: Any, cell: Any, meta_model: nn.Module | None) -> Iterable[Problem]:
        yield from alone(config)
        yield from cls.problems(cell, meta_model, pipeline=config.pipeline, tensor=config.tensor)

    def sizes(self) -> tuple[int, int, int]:
        tensor, pipeline = self.config.tensor, self.config.pipeline
        return self.config.world_size // (tensor * pipeline), pipeline, tensor

    def order(self) -> tuple[Order, int]:
        return self.config.schedule, self.config.num_micro_batches


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Mesh]
