"""Post-norm: normalise after the residual is added, as in the original transformer."""

from collections.abc import Callable

from torch import Tensor, nn

from harness import Method, NormPosition, hookimpl


class Post(NormPosition):
    """Norm(x + Sublayer(x)); the stack needs no last norm.

    Paper: Vaswani et al. 2017, arXiv:1706.03762, section 3.1
    """

    name = "post"

    def num_norms(self) -> int:
        return 1

    def final_norm(self) -> bool:
        return False

    def __call__(
        self,
        x_BTD: Tensor,
        sublayer: Callable[[Tensor], Tensor],
        norms: nn.ModuleList,
        residual_scale: float,
    ) -> Tensor:
        return norms[0](self.residual(x_BTD, residual_scale) + sublayer(x_BTD))  # type: ignore[no-any-return]


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Post]
