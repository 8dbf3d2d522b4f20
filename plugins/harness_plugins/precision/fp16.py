"""fp16: matrix products in half precision, with loss scaling."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from harness import ConfigError, LossScaler, Method, Precision, hookimpl


class Fp16(Precision):
    """Mixed precision whose loss is scaled so that small gradients survive.

    Paper: Micikevicius et al. 2017, arXiv:1710.03740, section 3
    Error: relative error of a product up to 2^-11; steps with overflowing gradients are skipped and the
    scale is halved
    State: the loss scale
    Raises: ConfigError if initial_scale is not positive
    """

    name = "fp16"

    @dataclass(frozen=True, kw_only=True)
    class Config(Precision.Config):
        initial_scale: float = 65536.0
        """First factor on the loss."""
        growth_interval: int = 2000
        """Steps without overflow after which the scale doubles."""

        def __post_init__(self) -> None:
            if not self.initial_scale > 0:
                raise ConfigError(f"precision.initial_scale={self.initial_scale} must be positive")
            if self.growth_interval < 1:
                raise ConfigError(f"precision.growth_interval={self.growth_interval} must be at least 1")

    config: Config

    def autocast(self, device_type: str) -> AbstractContextManager[Any]:
        return torch.autocast(device_type, dtype=torch.float16)

    def compute_dtype(self) -> torch.dtype:
        return torch.float16

    def scaler(self, device_type: str) -> LossScaler | None:
        return LossScaler(
            device_type,
            init_scale=self.config.initial_scale,
            growth_interval=self.config.growth_interval,
        )


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Fp16]
