"""Pre-norm: normalise what the sublayer reads; the residual path stays untouched."""

from collections.abc import Callable

from torch import Tensor, nn

from harness import Method, NormPosition, hookimpl


class Pre(NormPosition):
    """x + Sublayer(Norm(x)), with a last norm at the end of the stack.

    Paper: Xiong et al. 2020, arXiv:2002.04745
    """

    name = "pre"

    def num_norms(self) -> int:
        return 1

    def __call__(
        self,
        x_BTD: Tensor,
        sublayer: Callable[[Tensor], Tensor],
        norms: nn.ModuleList,
        residual_scale: float,
    ) -> Tensor:
        return self.residual(x_BTD, residual_scale) + sublayer(norms[0](x_BTD))


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Pre]
