"""Attention on unrotated queries and keys: lets a method choose every pair's distance, on any model.

The model's rotary module is made the identity, so that its cache holds unrotated keys; the attention
function rotates them as the method says.
Shapes: B batch, T queries, S keys, N heads (key heads repeated), H head dim
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import IncompatibleError
from harness.ops.extension import rotary_modules
from harness.ops.rotary import cos_sin, rotate_pairs

NAME = "harness_context"
"""Of the attention function registered with Hugging Face."""


@dataclass(frozen=True, kw_only=True)
class Heads:
    """What one attention layer is given.

    Shapes: q_BNTH, k_BNSH, v_BNSH; query_position_BT, key_position_BS (B may be 1); visible_BNTS bool,
    broadcastable: what the model lets each query read
    """

    q_BNTH: Tensor
    k_BNSH: Tensor
    v_BNSH: Tensor
    query_position_BT: Tensor
    key_position_BS: Tensor
    visible_BNTS: Tensor
    scale: float
    inv_freq: Tensor
    attention_factor: float

    def rotated(self, x_BNTH: Tensor, position_BT: Tensor) -> Tensor:
        """Queries or keys at positions, which may be fractions."""
        cos, sin = cos_sin(self.inv_freq, position_BT, dtype=x_BNTH.dtype, factor=self.attention_factor)
        return rotate_pairs(x_BNTH, cos, sin)

    def scores(self, query_position_BT: Tensor, key_position_BS: Tensor) -> Tensor:
        """Scores of all pairs with queries and keys at these positions (BNTS)."""
        q_BNTH = self.rotated(self.q_BNTH, query_position_BT)
        k_BNSH = self.rotated(self.k_BNSH, key_position_BS)
        return q_BNTH @ k_BNSH.transpose(-1, -2) * self.scale

    def plain_scores(self) -> Tensor:
        """Scores as the unchanged model has them (BNTS)."""
        return self.scores(self.query_position_BT, self.key_position_BS)

    def distance(self) -> Tensor:
        """Query position minus key position (B1TS)."""
        return self.query_position_BT[:, None, :, None] - self.key_position_BS[:, None, None, :]

    def mix(self, scores_BNTS: Tensor, reads_BNTS: Tensor | bool = True) -> Tensor:
        """Softmax over what is visible and read, then the values' average (BNTH)."""
        allowed = self.visible_BNTS & reads_BNTS
        scores_BNTS = scores_BNTS.masked_fill(~allowed, torch.finfo(scores_BNTS.dtype).min)
        return scores_BNTS.float().softmax(-1).to(self.v_BNSH.dtype) @ self.v_BNSH


Attend = Callable[[Heads], Tensor]


def plain(heads: Heads) -> Tensor:
    """Rotary attention as it is."""
    return heads.mix(heads.plain_scores())


def install(model: nn.Module, attend: Attend) -> None:
    """Let `attend` be the self-attention of a model.

    Raises: IncompatibleError where the model's attention cannot be replaced, found by trying
    """
    rotary = rotary_modules(model)
    shapes = {module.inv_freq.shape for module in rotary}  # type: ignore[union-attr]
    if len(shapes) > 1:
        raise IncompatibleError("layers of this model rotate differently; this context method needs one way")
    expected = _probe(model)
    if hasattr(rotary[0], "rotate"):
        _install_ours(model, rotary[0], plain)
    else:
        _install_hf(model, rotary, plain)
    found = _probe(model)
    if expected is not None and found is not None:
        error = float((expected - found).abs().max() / expected.abs().max())
        if error > 1e-3:
            raise IncompatibleError(
                f"the attention of {type(model).__name__} is not rotary attention as Llama has it (logits "
                f"differ by {error:.2g} of their size); this context method cannot replace it"
            )
    for module in model.modules():
        if getattr(module, "context_attend", None) is not None:
            module.context_attend = attend  # type: ignore[assignment]


@torch.no_grad()
def _probe(model: Any) -> Tensor | None:
    """Logits of a few tokens; None for a model on the meta device."""
    device = next(model.parameters()).device
    if device.type == "meta":
        return None
    training = model.training
    model.eval()
    ids = torch.arange(7, device=device)[None] % model.config.vocab_size
    logits: Tensor = model(input_ids=ids, use_cache=False).logits
    model.train(training)
    return logits.float()


def _install_ours(model: nn.Module, rotary: Any, attend: Attend) -> None:
    for module in model.modules():
        if hasattr(module, "override") and not getattr(module, "cross", False):
            if getattr(module, "recurrent", False):
                raise IncompatibleError(
                    f"attention={module.name} has no scores; this context method changes those"  # type: ignore[union-attr]
                )
            layer: Any = module
            layer.context_attend, layer.context_rotary = attend, [rotary]
            layer.override = _override
    rotary.rotate = MethodType(_unrotated, rotary)


def _unrotated(self: Any, x_BNTH: Tensor, position_BT: Tensor, *, is_key: bool) -> Tensor:
    return x_BNTH


def _override(layer: Any, q: Tensor, k: Tensor, v: Tensor, view: Any) -> Tensor:
    """The attention of our model; a list hides the rotary module from the layer's own submodules."""
    rotary, groups = layer.context_rotary[0], q.shape[1] // k.shape[1]
    restricts = type(layer).mask is not _base(type(layer)).mask
    rows, columns = (torch.arange(n, device=q.device) for n in (q.shape[2], k.shape[2]))
    heads = Heads(
        q_BNTH=q,
        k_BNSH=k.repeat_interleave(groups, 1),
        v_BNSH=v.repeat_interleave(groups, 1),
        query_position_BT=view.query_position_BT,
        key_position_BS=view.key_position_BS,
        visible_BNTS=view.allowed(layer.mask if restricts else None, q.shape[1], rows, columns),
        scale=layer.scale,
        inv_freq=rotary.inv_freq,
        attention_factor=rotary.attention_factor,
    )
    return layer.context_attend(heads)  # type: ignore[no-any-return]


def _base(kind: type) -> Any:
    """The axis class of an attention variant."""
    return next(base for base in kind.__mro__ if base.__dict__.get("axis") == "attention")


def _install_hf(model: Any, rotary: list[Any], attend: Attend) -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    def full_mask(*args: Any, **kwargs: Any) -> Any:
        return sdpa_mask(*args, **{**kwargs, "allow_is_causal_skip": False})

    AttentionInterface.register(NAME, _attention_function)
    AttentionMaskInterface.register(NAME, full_mask)
    for module in rotary:
        module.forward = MethodType(_identity, module)
    for module in model.modules():
        if hasattr(module, "layer_idx"):
            module.context_attend, module.context_rotary = attend, [rotary[0]]
    model.set_attn_implementation(NAME)
    if model.config._attn_implementation != NAME:
        raise IncompatibleError(
            f"{type(model).__name__} does not let its attention be replaced "
            f"(it stays {model.config._attn_implementation}); use a scaled-rotary context method"
        )


def _identity(self: Any, x: Tensor, position_ids: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """No rotation; the positions are kept for the attention function."""
    self.position_BT = position_ids
    shape = (*position_ids.shape, 2 * self.inv_freq.numel())
    return torch.ones(shape, dtype=x.dtype, device=x.device), torch.zeros(
        shape, dtype=x.dtype, device=x.device
    )


def _attention_function(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention of a Hugging Face model, in the form its interface wants (BTNH)."""
    rotary, groups = module.context_rotary[0], query.shape[1] // key.shape[1]
    position_BT: Tensor = rotary.position_BT
    # Keys stand in the cache in order, padding on the left: count back from the last query.
    back_S = torch.arange(key.shape[2] - 1, -1, -1, device=key.device)
    key_position_BS = position_BT[:, -1:] - back_S
    if attention_mask is None:
        visible = key_position_BS[:, None, None, :] <= position_BT[:, None, :, None]
    else:
        visible = attention_mask if attention_mask.dtype is torch.bool else attention_mask >= 0
    heads = Heads(
        q_BNTH=query,
        k_BNSH=key.repeat_interleave(groups, 1),
        v_BNSH=value.repeat_interleave(groups, 1),
        query_position_BT=position_BT,
        key_position_BS=key_position_BS,
        visible_BNTS=visible,
        scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
        inv_freq=rotary.inv_freq,
        attention_factor=rotary.attention_scaling,
    )
    return module.context_attend(heads).transpose(1, 2), None
