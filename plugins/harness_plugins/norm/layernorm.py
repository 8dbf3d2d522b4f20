"""LayerNorm: centre, scale to unit variance, then an affine map."""

from torch import nn

from harness import Method, ModelSpec, Norm, hookimpl


class LayerNorm(Norm):
    """(x - mean) / sqrt(var + eps) * weight + bias.

    Paper: Ba et al. 2016, arXiv:1607.06450
    """

    name = "layernorm"
    unread = frozenset({"norm_offset"})

    def build(self, dim: int, spec: ModelSpec) -> nn.Module:
        return nn.LayerNorm(dim, eps=spec.norm_eps, bias=self.has_bias(spec))


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [LayerNorm]
