"""Sandwich norm: normalise what the sublayer reads and what it writes."""

from collections.abc import Callable

from torch import Tensor, nn

from harness import Method, NormPosition, hookimpl


class Sandwich(NormPosition):
    """x + Norm(Sublayer(Norm(x))), with a last norm at the end of the stack.

    Paper: Ding et al. 2021 (CogView), arXiv:2105.13290, section 2.4
    """

    name = "sandwich"

    def num_norms(self) -> int:
        return 2

    def __call__(
        self,
        x_BTD: Tensor,
        sublayer: Callable[[Tensor], Tensor],
        norms: nn.ModuleList,
        residual_scale: float,
    ) -> Tensor:
        written: Tensor = norms[1](sublayer(norms[0](x_BTD)))
        return self.residual(x_BTD, residual_scale) + written


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Sandwich]
