"""Rotary embedding whose base grows with the sequence at hand."""

from dataclasses import dataclass

import torch
from torch import Tensor

from harness import ConfigError, Method, check_limits, hookimpl
from harness_plugins.position._rotary import FollowingRotary, check_factor


class RopeDynamic(FollowingRotary):
    """NTK-aware scaling by the length of each row; sequences up to the original length are read as trained.

    Paper: emozilla 2023, in Peng et al. 2023, arXiv:2309.00071, appendix B.2
    Differs: rows of a batch each follow their own length, where transformers takes the longest one's
    Raises: ConfigError for an odd rotated width or one of 2, or a factor below 1
    """

    name = "rope_dynamic"

    @dataclass(frozen=True, kw_only=True)
    class Config(FollowingRotary.Config):
        factor: float = 2.0
        """How much faster than the length the stretch grows."""
        original_length: int | None = None
        """Length up to which nothing changes, in tokens; null is model.max_length."""

        def __post_init__(self) -> None:
            super().__post_init__()
            check_factor(self.factor)
            check_limits(self, "position", "original_length", null="model.max_length")

    config: Config

    def frequencies(self) -> Tensor:
        if self.width == 2:
            raise ConfigError(
                "position=rope_dynamic needs more than one pair to rotate; raise model.head_dim"
            )
        return super().frequencies()

    def frequencies_of(self, length_B: Tensor) -> Tensor:
        original, factor = self.config.original_length or self.spec.max_length, self.config.factor
        stretch_B = factor * length_B.clamp(min=original).double() / original - (factor - 1)
        base_B = self.config.base * stretch_B ** (self.width / (self.width - 2))
        exponent = torch.arange(0, self.width, 2, device=length_B.device).double() / self.width
        return (base_B[:, None] ** -exponent).float()


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [RopeDynamic]
