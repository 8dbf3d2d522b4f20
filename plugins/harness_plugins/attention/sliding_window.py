"""Sliding-window attention: each token reads the last `window` tokens."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from harness import Attention, CellView, ConfigError, Method, Problem, hookimpl


class SlidingWindow(Attention):
    """Local attention; cost grows with T * window instead of T squared.

    Paper: Beltagy et al. 2020, arXiv:2004.05150, section 3.1
    Raises: ConfigError if window < 1
    """

    name = "sliding_window"

    @dataclass(frozen=True, kw_only=True)
    class Config(Attention.Config):
        window: int = 256
        """Tokens a position can read on either side, itself included."""
        num_kv_heads: int | None = None
        """Key/value heads (K); null keeps one for each query head."""

        def __post_init__(self) -> None:
            if self.window < 1:
                raise ConfigError(f"attention.window={self.window} must be at least 1")

    config: Config

    @classmethod
    def num_kv_heads(cls, config: Any, num_heads: int) -> int:
        return int(config.num_kv_heads or num_heads)

    @classmethod
    def check(cls, config: Any, cell: CellView, meta_model: nn.Module | None) -> Iterable[Problem]:
        yield from super().check(config, cell, meta_model)
        spec = getattr(meta_model, "spec", None)
        if spec is not None and config.window >= spec.max_length:
            yield Problem(
                where="attention.window",
                message=f"a window of {config.window} covers model.max_length={spec.max_length}, so nothing "
                "is restricted up to there; use a smaller window",
                fatal=False,
            )

    @classmethod
    def small(cls) -> Any:
        return cls.Config(window=4)

    @property
    def reach(self) -> int:
        return self.config.window  # type: ignore[no-any-return]

    def mask(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (q - k).abs() < self.config.window

    def keys(self, q_start: int, q_end: int, num_keys: int) -> slice:
        reach = self.config.window - 1
        return slice(max(0, q_start - reach), min(num_keys, q_end + reach))


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [SlidingWindow]
