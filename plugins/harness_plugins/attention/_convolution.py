"""A short causal convolution of each channel on its own, over the real tokens of a document.

Shapes: B batch, T tokens, C channels, W taps
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def short_convolution(
    x_BTC: Tensor,
    weight_CW: Tensor,
    bias_C: Tensor | None,
    *,
    recent: Tensor | None = None,
    padding_BT: Tensor | None = None,
    document_BT: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Each token's weighted sum with the W - 1 real tokens before it in its document.

    Shapes: recent BC(W-1), the last real inputs before these -> BTC, recent after the last token
    """
    taps = weight_CW.shape[1]
    if recent is None:
        recent = x_BTC.new_zeros(x_BTC.shape[0], x_BTC.shape[2], taps - 1)
    whole_BSC = torch.cat((recent.to(x_BTC.dtype).transpose(1, 2), x_BTC), dim=1)
    order_BS = None
    if padding_BT is not None:
        # Padding moves to the front, as zeros, so that real tokens stand side by side.
        real_BS = F.pad(padding_BT, (taps - 1, 0), value=True)
        order_BS = real_BS.long().argsort(dim=1, stable=True)[..., None].expand_as(whole_BSC)
        whole_BSC = (whole_BSC * real_BS[..., None]).gather(1, order_BS)
    after = whole_BSC[:, whole_BSC.shape[1] - taps + 1 :].transpose(1, 2)
    if document_BT is None:
        out = F.conv1d(whole_BSC.transpose(1, 2), weight_CW[:, None], bias_C, groups=len(weight_CW))
        out_BTC = out.transpose(1, 2)
    else:
        out_BTC = _within_documents(whole_BSC, weight_CW, document_BT)
        out_BTC = out_BTC if bias_C is None else out_BTC + bias_C
    if order_BS is not None:
        placed = torch.zeros_like(whole_BSC, dtype=out_BTC.dtype)
        placed = placed.scatter(1, order_BS, F.pad(out_BTC, (0, 0, taps - 1, 0)))
        out_BTC = placed[:, taps - 1 :]
    return out_BTC, after


def _within_documents(whole_BSC: Tensor, weight_CW: Tensor, document_BT: Tensor) -> Tensor:
    """The sum tap by tap, without those that lie in another document."""
    taps, length = weight_CW.shape[1], document_BT.shape[1]
    own_BS = F.pad(document_BT, (taps - 1, 0), value=-1)
    parts = []
    for tap in range(taps):
        same_BT = own_BS[:, tap : tap + length] == document_BT
        parts.append(whole_BSC[:, tap : tap + length] * weight_CW[:, tap] * same_BT[..., None])
    return torch.stack(parts).sum(dim=0)
