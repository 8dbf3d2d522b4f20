"""Architecture: which tokens are visible to which, and whether there is an encoder."""

from __future__ import annotations

from harness.axes.attention import Index
from harness.method import Method
from harness.spec import ModelSpec


class Architecture(Method):
    """Wiring of the stack.

    Shapes: index tensors broadcast together; `prefix_length` is the B prefix lengths indexed by b
    """

    axis = "architecture"
    default = "causal_decoder"

    def visible(self, q: Index, k: Index, prefix_length: Index) -> Index | bool:
        """Whether query position q may see key position k at all; methods only restrict this."""
        return k <= q

    @classmethod
    def has_encoder(cls) -> bool:
        """Whether the stack has encoder blocks with cross-attention from the decoder."""
        return False

    @classmethod
    def uses_prefix(cls) -> bool:
        """Whether batches must carry `prefix_length`."""
        return False

    @classmethod
    def modify_spec(cls, config: Method.Config, spec: ModelSpec) -> ModelSpec:
        return spec
