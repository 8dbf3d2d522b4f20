"""Retention: linear attention with a decay of its own for each head."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness import Method, ModelSpec, Position, hookimpl
from harness_plugins.attention._recurrent import Recurrent


class Retention(Recurrent):
    """GroupNorm(sum gamma^(q-k) (q . k) v) gated by Swish(x W_g), gamma_h = 1 - 2^(-5-h).

    Paper: Sun et al. 2023, arXiv:2307.08621, eq. 5 to 8
    Differs: rotation comes from the position axis; the scores' extra normalisers are left to the GroupNorm
    Differs: between a decoder and its source nothing decays, since distance means nothing there
    State: one H by H matrix a head while decoding
    """

    name = "retention"

    def build(self, spec: ModelSpec) -> None:
        super().build(spec)
        self.g_proj = nn.Linear(spec.dim, spec.num_heads * spec.head_dim, bias=spec.bias)

    def log_decay(self, x_BTD: Tensor, position: Position | None) -> Tensor:
        head = torch.arange(self.num_heads, device=x_BTD.device, dtype=torch.float32)
        return torch.log1p(-torch.exp2(-5 - head))[None, :, None]

    def feature(self, x_BNTH: Tensor, *, is_key: bool) -> Tensor:
        return x_BNTH * self.scale if is_key else x_BNTH

    def finish(self, mixed_BNTH: Tensor, x_BTD: Tensor) -> Tensor:
        normed = F.layer_norm(mixed_BNTH, mixed_BNTH.shape[-1:], eps=self.spec.norm_eps)
        gated = F.silu(self.g_proj(x_BTD)) * normed.transpose(1, 2).flatten(2)
        return self.o_proj(gated.to(x_BTD.dtype))  # type: ignore[no-any-return]


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Retention]
