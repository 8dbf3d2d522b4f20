"""Multi-query attention: all query heads share one key/value head."""

from typing import Any

from harness import Attention, Method, hookimpl


class MultiQuery(Attention):
    """Attention whose cache is smaller by the number of heads.

    Paper: Shazeer 2019, arXiv:1911.02150, section 3
    """

    name = "multi_query"

    @classmethod
    def num_kv_heads(cls, config: Any, num_heads: int) -> int:
        return 1


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [MultiQuery]
