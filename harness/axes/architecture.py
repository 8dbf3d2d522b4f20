"""Architecture: which tokens are visible to which, and whether there is an encoder."""

from __future__ import annotations

from harness.method import Method
from harness.ops.index import Index


class Architecture(Method):
    """Wiring of the stack.

    Shapes: slot indices broadcast together; `prefix_length` is the prefix length of each row (B111)
    """

    axis = "architecture"
    default = "causal_decoder"

    def visible(self, q: Index, k: Index, prefix_length: Index) -> Index | bool:
        """Whether query slot q may see key slot k at all; attention only restricts this."""
        return k <= q

    @classmethod
    def has_encoder(cls) -> bool:
        """Whether the stack has encoder blocks with cross-attention from the decoder."""
        return False

    @classmethod
    def uses_prefix(cls) -> bool:
        """Whether batches carry `prefix_length`; without one the prefix is empty and the stack causal."""
        return False
