"""Grouped-query attention: groups of query heads share a key/value head."""

from dataclasses import dataclass
from typing import Any

from harness import Attention, ConfigError, Method, hookimpl


class GroupedQuery(Attention):
    """Attention between full (K = N) and multi-query (K = 1); the cache shrinks by N / K.

    Paper: Ainslie et al. 2023, arXiv:2305.13245, section 2.2
    Raises: ConfigError if num_kv_heads does not divide the number of heads
    """

    name = "grouped_query"

    @dataclass(frozen=True, kw_only=True)
    class Config(Attention.Config):
        num_kv_heads: int = 2
        """Key/value heads (K); must divide model.num_heads."""

        def __post_init__(self) -> None:
            if self.num_kv_heads < 1:
                raise ConfigError(f"attention.num_kv_heads={self.num_kv_heads} must be at least 1")

    @classmethod
    def num_kv_heads(cls, config: Any, num_heads: int) -> int:
        return int(config.num_kv_heads)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [GroupedQuery]
