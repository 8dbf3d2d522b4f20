"""Attention on unrotated queries and keys: lets a method choose every pair's distance, on any model.

The model's rotary module is made the identity, so that its cache holds unrotated keys, which the attention
function rotates as the method says.
Shapes: B batch, T queries, S keys, N heads, K key/value heads, H head dim
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import IncompatibleError
from harness.ops.extension import RotarySet, rotary_sets
from harness.ops.growing_cache import GrowingCache
from harness.ops.heads import Attend, Reach, Rotate, State, causal, in_blocks, kept_positions, plain
from harness.ops.rotary import rotate_pairs
from harness.ops.sink_cache import SinkCache
from harness.ops.view import causal as causal_view

NAME = "harness_context"
"""Of the attention function registered with Hugging Face."""


def install(model: nn.Module, attend: Attend, *, reach: Reach = None) -> None:
    """Let `attend` be the self-attention of a model.

    Raises: IncompatibleError where the model's attention cannot be replaced, found by trying
    """
    sets = rotary_sets(model)
    if reason := irreplaceable(model):
        raise IncompatibleError(f"a {type(model).__name__} {reason}; use a scaled-rotary context method")
    expected, state = _probe(model), State(plain, None)
    if hasattr(sets[0].module, "rotate"):
        _install_ours(model, state)
    else:
        _install_hf(model, sets, state)
    found = _probe(model)
    if expected is not None and found is not None:
        error = float((expected - found).abs().max() / expected.abs().max())
        if error > 1e-3:
            raise IncompatibleError(
                f"the attention of {type(model).__name__} is not rotary attention as Llama has it (logits "
                f"differ by {error:.2g} of their size); this context method cannot replace it"
            )
    state.attend, state.reach = attend, reach
    _keep_little(model, state)


def irreplaceable(model: Any) -> str:
    """Why the attention of a model cannot be replaced, as far as its classes tell; empty where it can."""
    can = getattr(type(model), "_can_set_attn_implementation", None)
    if can is not None and not can():
        return "does not let its attention be replaced"
    for module in model.modules() if can is not None else ():
        if not getattr(module, "use_rope", True):
            return "has layers without rotary positions"
        if isinstance(getattr(module, "sinks", None), nn.Parameter):
            return "weighs its scores against learned sinks"
    return ""


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


def _keep_little(model: Any, state: State) -> None:
    """Let every pass leave its cache and its padding where the layers find them; bounded where it may be."""
    backbone = model.base_model
    backbone.context_state = state
    backbone.register_forward_pre_hook(_before, with_kwargs=True)
    backbone.register_forward_hook(_after, always_call=True)
    depth = model.config.get_text_config(decoder=True).num_hidden_layers
    model.context_cache = backbone.context_cache = _CacheMaker(depth, state.reach)


@dataclass(frozen=True)
class _CacheMaker:
    """Makes caches; copied with the model."""

    depth: int
    reach: Reach

    def __call__(self) -> Any:
        from transformers import DynamicCache
        from transformers.cache_utils import CacheLayerMixin

        CacheLayerMixin.register(SinkCache)
        CacheLayerMixin.register(GrowingCache)
        cache, reach = DynamicCache(), self.reach
        kept = [GrowingCache() if reach is None else SinkCache(*reach) for _ in range(self.depth)]
        cache.layers = kept
        return cache


def _before(backbone: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Before a pass of the backbone: an empty cache of another kind becomes one of ours."""
    state, cache = backbone.context_state, kwargs.get("past_key_values")
    given = kwargs.get("use_cache")
    asked = getattr(getattr(backbone, "config", None), "use_cache", False) if given is None else given
    if cache is None:
        fresh = bool(asked) and not backbone.training
    else:
        fresh = cache.get_seq_length() == 0 and not _is_ours(cache)
    if fresh:
        cache = kwargs["past_key_values"] = backbone.context_cache()
    mask = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)
    padding_BS = mask.bool() if isinstance(mask, Tensor) and mask.dim() == 2 else None
    if padding_BS is not None:
        none = torch.full((len(padding_BS),), padding_BS.shape[1], device=padding_BS.device)
        starts_B = torch.where(padding_BS.any(dim=1), padding_BS.long().argmax(dim=1), none)
        for layer in getattr(cache, "layers", ()):
            if isinstance(layer, SinkCache):
                layer.starts_B = starts_B
    state.padding_BS = None if padding_BS is None or bool(padding_BS.all()) else padding_BS
    state.cache = cache
    return args, kwargs


def _is_ours(cache: Any) -> bool:
    return any(isinstance(layer, SinkCache | GrowingCache) for layer in getattr(cache, "layers", ()))


def _after(backbone: Any, args: Any, output: Any) -> None:
    backbone.context_state.cache = backbone.context_state.padding_BS = None


def _install_ours(model: Any, state: State) -> None:
    """Every layer's attention and the positions that it has, which may differ from those of other layers."""
    for stack in (model.base_model, model.base_model.encoder):
        if stack is None:
            continue
        for block, at in zip(stack.layers, stack.position_of_layer, strict=True):
            layer, rotary = block.self_attn, stack.position_at(at)
            if layer.recurrent or not hasattr(rotary, "inv_freq"):
                raise IncompatibleError(
                    f"a layer of attention={layer.name} and position={rotary.name} has no scores of rotated "
                    "queries and keys, which this context method changes; use a scaled-rotary one"
                )
            layer.context_attend, layer.context_rotary = state, [rotary]
            layer.override = _override
            if "plain_rotate" not in rotary.__dict__:
                rotary.plain_rotate = rotary.rotate
                rotary.rotate = MethodType(_unrotated, rotary)


def _unrotated(self: Any, x_BNTH: Tensor, position_BT: Tensor, *, is_key: bool) -> Tensor:
    return x_BNTH


def _override(layer: Any, q: Tensor, k: Tensor, v: Tensor, view: Any) -> Tensor:
    """The attention of our model; a list hides the rotary module from the layer's own submodules."""
    rotary = layer.context_rotary[0]
    restricts = type(layer).mask is not _base(type(layer)).mask
    mask = layer.mask if restricts else None
    key_position_BS, kept = view.key_position_BS, kept_positions(layer.context_attend, layer.layer)
    columns_S = torch.arange(k.shape[2], device=q.device)
    if kept is not None and kept.shape[1] < layer.context_attend.cache.layers[layer.layer].seen:
        key_position_BS = kept  # some keys are gone, and the view knows of the last ones only
        assert view.document_BS is None, "documents come without a cache"

    def visible(rows: slice, columns: slice | Tensor) -> Tensor:
        if key_position_BS is kept:
            seen = causal(view.query_position_BT[:, rows], kept[:, columns])
            if mask is None:
                return seen
            batch = torch.arange(len(kept), device=q.device)[:, None, None, None]
            head = torch.arange(q.shape[1], device=q.device)[None, :, None, None]
            places = view.query_position_BT[:, None, rows, None], kept[:, None, None, columns]
            allowed: Tensor = seen & mask(batch, head, *places)
            return allowed
        row_T = torch.arange(*rows.indices(q.shape[2]), device=q.device)
        return view.allowed(mask, q.shape[1], row_T, columns_S[columns])  # type: ignore[no-any-return]

    return in_blocks(
        layer.context_attend,
        q,
        k,
        v,
        query_position_BT=view.query_position_BT,
        key_position_BS=key_position_BS,
        visible=visible,
        scale=layer.scale,
        rotary=RotarySet(module=rotary),
        rotate=lambda x, position, is_key: rotary.plain_rotate(x, position, is_key=is_key),
        cap=layer.spec.attention_cap,
        ahead=view.visible is not causal_view,
    )


def _base(kind: type) -> Any:
    """The axis class of an attention variant."""
    return next(base for base in kind.__mro__ if base.__dict__.get("axis") == "attention")


def _install_hf(model: Any, sets: list[RotarySet], state: State) -> None:
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, _attention_function)
    AttentionMaskInterface.register(NAME, _mask)
    changed = {each.layer_type for each in sets}
    for each in sets:
        module: Any = each.module
        if "plain_forward" not in module.__dict__:
            module.plain_forward, module.context_types = module.forward, changed
            module.forward = MethodType(_identity, module)
    kinds = getattr(model.config.get_text_config(decoder=True), "layer_types", None)
    for module in model.modules():
        if hasattr(module, "layer_idx"):
            kind = kinds[module.layer_idx] if kinds and changed != {None} else None
            if kind in changed:
                module.context_attend = state
                module.context_rotary = [next(each for each in sets if each.layer_type == kind)]
    model.set_attn_implementation(NAME)


def _mask(*args: Any, attention_mask: Tensor | None = None, config: Any = None, **kwargs: Any) -> Any:
    """The padding alone where no layer has a window of its own, else what transformers' sdpa gets."""
    from transformers.masking_utils import sdpa_mask

    if getattr(config, "sliding_window", None) is None:
        return attention_mask
    return sdpa_mask(*args, attention_mask=attention_mask, **{**kwargs, "allow_is_causal_skip": False})


def _identity(
    self: Any, x: Tensor, position_ids: Tensor, layer_type: str | None = None
) -> tuple[Tensor, Tensor]:
    """No rotation for the layers that a method changes; the positions are kept for the attention function."""
    cos, sin = self.plain_forward(x, position_ids, *(() if layer_type is None else (layer_type,)))
    if layer_type not in self.context_types:
        return cos, sin
    self.position_BT = position_ids
    return torch.ones_like(cos), torch.zeros_like(sin)


def _attention_function(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention of a Hugging Face model, in the form its interface wants (BTNH)."""
    state = getattr(module, "context_attend", None)
    if state is None:  # a layer of a type that the method leaves alone
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        found: tuple[Tensor, None] = sdpa_attention_forward(
            module,
            query,
            key,
            value,
            attention_mask,
            scaling=scaling,
            sliding_window=sliding_window,
            **kwargs,
        )
        return found
    each: RotarySet = module.context_rotary[0]
    position_BT: Tensor = each.module.position_BT
    kept, padding_BS = kept_positions(state, module.layer_idx), state.padding_BS
    if kept is not None:
        key_position_BS = kept
    elif padding_BS is not None and padding_BS.shape[1] == key.shape[2]:
        place_BS = padding_BS.long().cumsum(dim=1) - 1
        place_BS = place_BS + (position_BT[:, -1:] - place_BS[:, -1:])
        key_position_BS = place_BS.masked_fill(~padding_BS, -1)
    else:  # keys stand in the cache in order: count back from the last query
        back_S = torch.arange(key.shape[2] - 1, -1, -1, device=key.device)
        key_position_BS = position_BT[:, -1:] - back_S

    def visible(rows: slice, columns: slice | Tensor) -> Tensor:
        seen = causal(position_BT[:, rows], key_position_BS[:, columns])
        if attention_mask is not None and attention_mask.dim() == 4 and kept is None:
            given = attention_mask[:, :, rows, columns]
            seen = seen & (given if given.dtype is torch.bool else given >= 0)
        elif kept is not None and sliding_window is not None:  # the layer's own, of which no mask tells here
            back = position_BT[:, None, rows, None] - key_position_BS[:, None, None, columns]
            seen = seen & (back < sliding_window)
        return seen

    mixed = in_blocks(
        state,
        query,
        key,
        value,
        query_position_BT=position_BT,
        key_position_BS=key_position_BS,
        visible=visible,
        scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
        rotary=each,
        rotate=_rotation_of(module, each),
        cap=softcap,
    )
    return mixed.transpose(1, 2).contiguous(), None


def _rotation_of(module: Any, each: RotarySet) -> Rotate:
    """The model's own rotation, by its modelling code's function; Llama's where it has none."""
    own = getattr(sys.modules[type(module).__module__], "apply_rotary_pos_emb", None)
    types = () if each.layer_type is None else (each.layer_type,)

    def rotate(x_BNTH: Tensor, position_BT: Tensor, is_key: bool) -> Tensor:
        cos, sin = each.module.plain_forward(x_BNTH, position_BT, *types)
        if own is not None and cos.shape[-1] in (x_BNTH.shape[-1], 2 * each.inv_freq.numel()):
            try:
                # Of the other of queries and keys, one head that nobody reads.
                pair = (x_BNTH[:, :1], x_BNTH) if is_key else (x_BNTH, x_BNTH[:, :1])
                turned = own(*pair, cos, sin)[1 if is_key else 0]
            except (RuntimeError, TypeError):
                turned = None
            if turned is not None and turned.shape == x_BNTH.shape:
                return turned  # type: ignore[no-any-return]
        return rotate_pairs(x_BNTH, cos[:, None], sin[:, None])

    return rotate
