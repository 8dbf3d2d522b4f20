"""Prefix decoder: the prefix is read in both directions, the rest causally."""

from torch import Tensor

from harness import Architecture, Method, hookimpl


class PrefixDecoder(Architecture):
    """Non-causal decoder, as in GLM-130B and U-PaLM; `generate` takes the prompt as the prefix.

    Paper: Raffel et al. 2019, arXiv:1910.10683, section 3.2.1
    """

    name = "prefix_decoder"

    def visible(self, q: Tensor, k: Tensor, prefix_length: Tensor) -> Tensor:
        return (k <= q) | (k < prefix_length)

    @classmethod
    def uses_prefix(cls) -> bool:
        return True


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [PrefixDecoder]
