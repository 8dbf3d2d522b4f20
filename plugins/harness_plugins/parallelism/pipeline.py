"""Pipeline parallelism: layers spread over processes, micro-batches passed along."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from harness import ConfigError, Method, Problem, hookimpl
from harness_plugins.parallelism._mesh import Grid, Order
from harness_plugins.parallelism._processes import alone


class Pipeline(Grid):
    """Consecutive layers on consecutive processes, filled with micro-batches.

    Paper: Huang et al. 2018, arXiv:1811.06965 (gpipe); Narayanan et al. 2020, arXiv:2006.09503 (1f1b)
    Raises: ConfigError if num_micro_batches is below 1
    """

    name = "pipeline"

    @dataclass(frozen=True, kw_only=True)
    class Config(Grid.Config):
        schedule: Order = Order.gpipe
        """gpipe: all forward, then all backward; one_f_one_b: alternating, with less memory."""
        num_micro_batches: int = 4
        """Pieces that a batch is passed along in, or the largest number below that divides it."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.num_micro_batches < 1:
                raise ConfigError(
                    f"parallelism.num_micro_batches={self.num_micro_batches} must be at least 1"
                )

    config: Config

    @classmethod
    def check(cls, config: Any, cell: Any, meta_model: nn.Module | None) -> Iterable[Problem]:
        yield from alone(config)
        yield from cls.problems(cell, meta_model, pipeline=config.world_size, tensor=1)

    def sizes(self) -> tuple[int, int, int]:
        return 1, self.config.world_size, 1

    def order(self) -> tuple[Order, int]:
        return self.config.schedule, self.config.num_micro_batches


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Pipeline]
