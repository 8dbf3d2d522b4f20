"""Linear attention: a positive feature map in place of the softmax."""

import torch
import torch.nn.functional as F
from torch import Tensor

from harness import Method, hookimpl
from harness_plugins.attention._recurrent import Recurrent


class Linear(Recurrent):
    """phi(q) sum phi(k) v / phi(q) sum phi(k), phi(x) = elu(x) + 1; time and memory linear in T.

    Paper: Katharopoulos et al. 2020, arXiv:2006.16236, eq. 8 to 12
    State: one H by H + 1 matrix a head while decoding
    """

    name = "linear"

    def feature(self, x_BNTH: Tensor, *, is_key: bool) -> Tensor:
        return F.elu(x_BNTH) + 1

    def values(self, v_BNTH: Tensor) -> Tensor:
        # A last column of ones sums the keys, which is the normaliser.
        return torch.cat((v_BNTH, torch.ones_like(v_BNTH[..., :1])), dim=-1)

    def finish(self, mixed_BNTE: Tensor, x_BTD: Tensor) -> Tensor:
        mixed = mixed_BNTE[..., :-1] / mixed_BNTE[..., -1:].clamp_min(1e-6)
        return self.o_proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Linear]
