"""Clip norm: scales gradients down to a maximum global norm."""

from dataclasses import dataclass

from torch import Tensor, nn

from harness import ConfigError, Method, Stabilizer, clip_gradients, hookimpl


class ClipNorm(Stabilizer):
    """Gradient clipping by the norm over all parameters.

    Paper: Pascanu et al. 2012, arXiv:1211.5063, algorithm 1
    Raises: ConfigError if max_norm is not positive
    """

    name = "clip_norm"
    changes = frozenset({"gradient_norm"})

    @dataclass(frozen=True, kw_only=True)
    class Config(Stabilizer.Config):
        max_norm: float = 1.0
        """Largest global L2 norm of the gradients."""

        def __post_init__(self) -> None:
            if not self.max_norm > 0:
                raise ConfigError(f"stabilizer.clip_norm.max_norm={self.max_norm} must be positive")

    config: Config

    def on_gradients(self, model: nn.Module, step: int) -> dict[str, float | Tensor]:
        return {"gradient_norm": clip_gradients(model, self.config.max_norm)}


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [ClipNorm]
