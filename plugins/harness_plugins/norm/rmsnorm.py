"""RMSNorm: scale by the root mean square, without centring."""

from torch import nn

from harness import Method, ModelSpec, Norm, hookimpl, rms_norm


class RmsNorm(Norm):
    """x / RMS(x) * weight.

    Paper: Zhang and Sennrich 2019, arXiv:1910.07467
    """

    name = "rmsnorm"
    unread = frozenset({"norm_bias"})

    def build(self, dim: int, spec: ModelSpec) -> nn.Module:
        made: nn.Module = rms_norm(dim, eps=spec.norm_eps, offset=spec.norm_offset)
        return made


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [RmsNorm]
