"""Single: one process."""

from dataclasses import dataclass

from torch import nn

from harness import ConfigError, Method, Parallelism, hookimpl


class Single(Parallelism):
    """One process on one device; the reference of all other ways.

    Raises: ConfigError if several processes are asked for
    """

    name = "single"

    @dataclass(frozen=True, kw_only=True)
    class Config(Parallelism.Config):
        def __post_init__(self) -> None:
            if self.num_processes != 1 or self.num_nodes != 1:
                raise ConfigError(
                    "parallelism=single runs one process; choose ddp, zero1, zero2, fsdp, tensor, pipeline "
                    f"or mesh for num_processes={self.num_processes}, num_nodes={self.num_nodes}"
                )

    config: Config

    @classmethod
    def trial(cls) -> Config:
        return cls.Config()

    def wrap(self, model: nn.Module) -> nn.Module:
        return model


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Single]
