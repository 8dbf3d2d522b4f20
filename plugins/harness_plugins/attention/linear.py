"""Linear attention: a positive feature map in place of the softmax."""

import torch
import torch.nn.functional as F
from torch import Tensor

from harness import Method, hookimpl
from harness_plugins.attention._recurrent import Recurrent, Sums


class Linear(Recurrent):
    """phi(q) sum phi(k) v / phi(q) sum phi(k), phi(x) = elu(x) + 1; time and memory linear in T.

    Rotary positions turn phi(q) and phi(k) above the line and leave the denominator alone, so that the result
    depends on distances only and nothing is divided by a sum near zero.

    Paper: Katharopoulos et al. 2020, arXiv:2006.16236, eq. 8 to 12; Su et al. 2021, arXiv:2104.09864, eq. 19
    State: one H by H matrix and one sum of keys a head while decoding
    """

    name = "linear"
    unread = frozenset({"attention_cap", "attention_scale"})

    def feature(self, x_BNTH: Tensor, *, is_key: bool) -> Tensor:
        return F.elu(x_BNTH) + 1

    def combine(
        self, q: Tensor, k: Tensor, v: Tensor, turned: tuple[Tensor, Tensor], sums: Sums, x_BTD: Tensor
    ) -> Tensor:
        ones = torch.ones_like(v[..., :1])
        if turned[0] is q and turned[1] is k:
            # A last column of ones sums the keys in the same pass.
            whole = sums(q, k, torch.cat((v, ones), dim=-1))
            top, bottom = whole[..., :-1], whole[..., -1:]
        else:
            top, bottom = sums(*turned, v), sums(q, k, ones, name="norm")
        return top / bottom.clamp_min(1e-6)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Linear]
