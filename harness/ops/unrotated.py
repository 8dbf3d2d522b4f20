"""Attention on unrotated queries and keys: lets a method choose every pair's distance, on any model.

The model's rotary module is made the identity, so that its cache holds unrotated keys; the attention
function rotates them as the method says, block by block, so that no score of a whole sequence is ever held.
Shapes: B batch, T queries, S keys, N heads, K key/value heads, H head dim
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import IncompatibleError
from harness.ops.extension import RotarySet, rotary_sets
from harness.ops.growing_cache import GrowingCache
from harness.ops.rotary import cos_sin, rotate_pairs
from harness.ops.sink_cache import SinkCache

NAME = "harness_context"
"""Of the attention function registered with Hugging Face."""
SCORES = 1 << 23
"""Scores of one block at most; blocks are smaller where there are more keys."""
ROWS = 256
"""Queries of one block at most."""

Rotate = Callable[[Tensor, Tensor, bool], Tensor]
"""(queries or keys BNTH, positions BT, whether they are keys) -> rotated as the model rotates them."""


@dataclass(frozen=True, kw_only=True)
class Heads:
    """What one attention layer is given: some queries, and all keys that any of them may read.

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
    rotate: Rotate | None = None
    """How the model rotates; None is Llama's way, by `inv_freq`."""
    length_B: Tensor | None = None
    """Tokens that each sequence had when it was first read; None = the last key's position says it."""

    def rotated(self, x_BNTH: Tensor, position_BT: Tensor, *, is_key: bool = False) -> Tensor:
        """Queries or keys at positions, which may be fractions."""
        if self.rotate is not None:
            return self.rotate(x_BNTH, position_BT, is_key)
        cos, sin = cos_sin(self.inv_freq, position_BT, dtype=x_BNTH.dtype, factor=self.attention_factor)
        return rotate_pairs(x_BNTH, cos, sin)

    def scores(self, query_position_BT: Tensor, key_position_BS: Tensor) -> Tensor:
        """Scores of all pairs with queries and keys at these positions (BNTS)."""
        q_BNTH = self.rotated(self.q_BNTH, query_position_BT)
        k_BNSH = self.rotated(self.k_BNSH, key_position_BS, is_key=True)
        return q_BNTH @ k_BNSH.transpose(-1, -2) * self.scale

    def plain_scores(self) -> Tensor:
        """Scores as the unchanged model has them (BNTS)."""
        return self.scores(self.query_position_BT, self.key_position_BS)

    def distance(self) -> Tensor:
        """Query position minus key position (B1TS)."""
        return self.query_position_BT[:, None, :, None] - self.key_position_BS[:, None, None, :]

    def lengths(self) -> Tensor:
        """Tokens of each sequence when it was first read (B)."""
        return self.key_position_BS.amax(dim=1) + 1 if self.length_B is None else self.length_B

    def mix(self, scores_BNTS: Tensor, reads_BNTS: Tensor | bool = True) -> Tensor:
        """Softmax over what is visible and read, then the values' average (BNTH)."""
        allowed = self.visible_BNTS & reads_BNTS
        scores_BNTS = scores_BNTS.masked_fill(~allowed, torch.finfo(scores_BNTS.dtype).min)
        return scores_BNTS.float().softmax(-1).to(self.v_BNSH.dtype) @ self.v_BNSH


Attend = Callable[[Heads], Tensor]
Reach = tuple[int, int] | None
"""(first tokens, last tokens) that a method reads at most; None where it may read any."""


def plain(heads: Heads) -> Tensor:
    """Rotary attention as it is."""
    return heads.mix(heads.plain_scores())


class State:
    """What the layers of one model share: how attention reads, and the cache of the pass that runs."""

    def __init__(self, attend: Attend, reach: Reach) -> None:
        self.attend, self.reach = attend, reach
        self.cache: Any = None
        self.padding_BS: Tensor | None = None


def install(model: nn.Module, attend: Attend, *, reach: Reach = None) -> None:
    """Let `attend` be the self-attention of a model.

    Raises: IncompatibleError where the model's attention cannot be replaced, found by trying
    """
    sets = rotary_sets(model)
    shapes = {each.inv_freq.shape for each in sets}
    if len(shapes) > 1:
        raise IncompatibleError("layers of this model rotate differently; this context method needs one way")
    expected, state = _probe(model), State(plain, None)
    if hasattr(sets[0].module, "rotate"):
        _install_ours(model, sets[0].module, state)
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
        from transformers import Cache
        from transformers.cache_utils import CacheLayerMixin

        CacheLayerMixin.register(SinkCache)
        CacheLayerMixin.register(GrowingCache)
        layers = range(self.depth)
        if self.reach is None:
            return Cache(layers=[GrowingCache() for _ in layers])
        return Cache(layers=[SinkCache(*self.reach) for _ in layers])


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


def _install_ours(model: nn.Module, rotary: Any, state: State) -> None:
    for module in model.modules():
        if hasattr(module, "override") and not getattr(module, "cross", False):
            if getattr(module, "recurrent", False):
                raise IncompatibleError(
                    f"attention={module.name} has no scores; this context method changes those"  # type: ignore[union-attr]
                )
            layer: Any = module
            layer.context_attend, layer.context_rotary = state, [rotary]
            layer.override = _override
    rotary.plain_rotate = rotary.rotate
    rotary.rotate = MethodType(_unrotated, rotary)


def _unrotated(self: Any, x_BNTH: Tensor, position_BT: Tensor, *, is_key: bool) -> Tensor:
    return x_BNTH


def _override(layer: Any, q: Tensor, k: Tensor, v: Tensor, view: Any) -> Tensor:
    """The attention of our model; a list hides the rotary module from the layer's own submodules."""
    rotary = layer.context_rotary[0]
    restricts = type(layer).mask is not _base(type(layer)).mask
    mask = layer.mask if restricts else None
    key_position_BS, kept = view.key_position_BS, _kept(layer.context_attend, layer.layer)
    columns_S = torch.arange(k.shape[2], device=q.device)
    if kept is not None and kept.shape[1] < layer.context_attend.cache.layers[layer.layer].seen:
        key_position_BS = kept  # some keys are gone, and the view knows of the last ones only
        if mask is not None or view.document_BS is not None:
            raise IncompatibleError(
                f"attention={layer.name} restricts what is read by itself; a windowed context method needs "
                "attention=full or grouped_query"
            )

    def visible(rows: slice, columns: slice | Tensor) -> Tensor:
        if key_position_BS is kept:
            return _causal(view.query_position_BT[:, rows], kept[:, columns])
        row_T = torch.arange(*rows.indices(q.shape[2]), device=q.device)
        return view.allowed(mask, q.shape[1], row_T, columns_S[columns])  # type: ignore[no-any-return]

    return _in_blocks(
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
    if model.config._attn_implementation != NAME:
        raise IncompatibleError(
            f"{type(model).__name__} does not let its attention be replaced "
            f"(it stays {model.config._attn_implementation}); use a scaled-rotary context method"
        )


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
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention of a Hugging Face model, in the form its interface wants (BTNH)."""
    state = getattr(module, "context_attend", None)
    if state is None:  # a layer of a type that the method leaves alone
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        found: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **kwargs
        )
        return found
    each: RotarySet = module.context_rotary[0]
    position_BT: Tensor = each.module.position_BT
    kept, padding_BS = _kept(state, module.layer_idx), state.padding_BS
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
        seen = _causal(position_BT[:, rows], key_position_BS[:, columns])
        if attention_mask is not None and attention_mask.dim() == 4 and kept is None:
            given = attention_mask[:, :, rows, columns]
            seen = seen & (given if given.dtype is torch.bool else given >= 0)
        return seen

    mixed = _in_blocks(
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
                turned = own(x_BNTH, x_BNTH, cos, sin)[1 if is_key else 0]
            except (RuntimeError, TypeError):
                turned = None
            if turned is not None and turned.shape == x_BNTH.shape:
                return turned  # type: ignore[no-any-return]
        return rotate_pairs(x_BNTH, cos[:, None], sin[:, None])

    return rotate


def _kept(state: State, layer: int) -> Tensor | None:
    """Positions of the keys that a bounded cache returned to this layer; None for any other cache."""
    layers = getattr(state.cache, "layers", ())
    found = layers[layer] if layer < len(layers) else None
    return found.places_BS if isinstance(found, SinkCache) else None


def _causal(query_position_BT: Tensor, key_position_BS: Tensor) -> Tensor:
    """Real keys that stand no later than the query (B1TS)."""
    key = key_position_BS[:, None, None, :]
    return (key <= query_position_BT[:, None, :, None]) & (key >= 0)


def _in_blocks(
    state: State,
    q_BNTH: Tensor,
    k_BKSH: Tensor,
    v_BKSH: Tensor,
    *,
    query_position_BT: Tensor,
    key_position_BS: Tensor,
    visible: Callable[[slice, slice | Tensor], Tensor],
    scale: float,
    rotary: RotarySet,
    rotate: Rotate,
) -> Tensor:
    """A method's attention, a block of queries and the keys that these may read at a time (BNTH)."""
    (batch, num_heads, num_queries, _), num_keys = q_BNTH.shape, k_BKSH.shape[2]
    groups, past = num_heads // k_BKSH.shape[1], num_keys - num_queries
    width = num_keys if state.reach is None else min(num_keys, sum(state.reach) + ROWS)
    size = max(8, min(ROWS, SCORES // (batch * num_heads * width)))
    module = rotary.module
    factor = getattr(module, "attention_factor", getattr(module, rotary.attribute("attention_scaling"), 1.0))
    lengths_B = _first_lengths(state, key_position_BS, num_queries)
    outputs = []
    for start in range(0, num_queries, size):
        rows = slice(start, min(start + size, num_queries))
        columns = _columns(state.reach, key_position_BS, past + rows.start, past + rows.stop)
        heads = Heads(
            q_BNTH=q_BNTH[:, :, rows],
            k_BNSH=k_BKSH[:, :, columns].repeat_interleave(groups, 1),
            v_BNSH=v_BKSH[:, :, columns].repeat_interleave(groups, 1),
            query_position_BT=query_position_BT[:, rows],
            key_position_BS=key_position_BS[:, columns],
            visible_BNTS=visible(rows, columns),
            scale=scale,
            inv_freq=rotary.inv_freq,
            attention_factor=float(factor),
            rotate=rotate,
            length_B=lengths_B,
        )
        outputs.append(state.attend(heads))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)


def _first_lengths(state: State, key_position_BS: Tensor, num_queries: int) -> Tensor:
    """Tokens of each row when it was first read: its prompt's, once it is decoded token by token."""
    now_B = key_position_BS.amax(dim=1) + 1
    first = next(iter(getattr(state.cache, "layers", ())), None)
    if not isinstance(first, GrowingCache):
        return now_B
    if num_queries == key_position_BS.shape[1] or first.lengths_B is None:
        first.lengths_B = now_B
    return first.lengths_B


def _columns(reach: Reach, key_position_BS: Tensor, start: int, end: int) -> slice | Tensor:
    """Key columns that the queries at columns start..end may read, a superset of what positions allow."""
    if reach is None:
        return slice(0, end)
    sinks, window = reach
    begin = max(0, start - window + 1)
    early = key_position_BS[:, :begin]
    first = ((early >= 0) & (early < sinks)).any(dim=0).nonzero()[:, 0]
    if not len(first):
        return slice(begin, end)
    return torch.cat((first, torch.arange(begin, end, device=first.device)))
