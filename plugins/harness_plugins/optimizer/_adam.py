"""Shared by the methods that estimate a gradient's first two moments as Adam does."""

from dataclasses import dataclass

from harness import Optimizer


class Moments(Optimizer):
    """Base of Adam's relatives; what they do with the moments is theirs."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Optimizer.Config):
        beta1: float = 0.9
        """Decay of the first moment."""
        beta2: float = 0.95
        """Decay of the second moment (0.95 as GPT-3, PaLM and LLaMA)."""
        eps: float = 1e-8
        """Added to the root of the second moment."""

    config: Config

    @property
    def betas(self) -> tuple[float, float]:
        """Both decays, as torch's optimizers take them."""
        return self.config.beta1, self.config.beta2
