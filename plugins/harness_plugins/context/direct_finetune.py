"""Direct fine-tuning: training on longer sequences, nothing else."""

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from harness import ConfigError, Context, Method, Rotary, hookimpl, set_length


class DirectFinetune(Context):
    """Trains on, on longer sequences, in one or several stages of length (LongLLaMA, Code Llama).

    Paper: survey of Zhao et al. 2023, arXiv:2303.18223, section 4.2.4
    Raises: ConfigError if stages are not increasing multiples up to factor
    """

    name = "direct_finetune"
    requires = frozenset()
    changes = frozenset()
    trains = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Context.Config):
        stages: list[float] = field(default_factory=list)
        """Lengths before the last as multiples of the trained one, in order, e.g. [2, 4] before factor=8."""

        def __post_init__(self) -> None:
            super().__post_init__()
            rises = sorted({*self.stages, self.factor}) == [*self.stages, self.factor]
            if not rises or any(stage < 1 for stage in self.stages):
                raise ConfigError(
                    f"context.stages={list(self.stages)} must increase from 1 and stay below "
                    f"factor={self.factor}"
                )

    config: Config

    def lengths(self) -> list[float]:
        """All lengths trained on, as multiples of the trained one."""
        return [*self.config.stages, self.config.factor]

    def rope_parameters(self, rotary: Rotary) -> dict[str, Any]:
        return {"rope_type": "default", "rope_theta": rotary.base}

    def apply(self, model: nn.Module) -> nn.Module:
        set_length(model, self.target_length(model))
        return model


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [DirectFinetune]
