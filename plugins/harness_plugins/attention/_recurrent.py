"""What recurrent variants share: one state a head instead of a growing cache."""

from typing import Any

import torch
from torch import Tensor

from harness import (
    Attention,
    IncompatibleError,
    ModelSpec,
    Position,
    StateCache,
    View,
    chunked_linear,
    kept_by_chunks,
    parallel_linear,
)


class Recurrent(Attention):
    """Attention without softmax: its past is a sum, so decoding costs the same at any length.

    A causal pass goes chunk by chunk (linear time), documents and padding included; a bidirectional one takes
    the quadratic form. A cache that holds keys (prefix tuning) is read in the quadratic form too.
    """

    recurrent = True
    keeps_scores = True
    unread = frozenset({"attention_cap"})

    @classmethod
    def kept_values(cls, config: Any, spec: ModelSpec, length: int) -> float:
        decays, width = cls.log_decay is not Recurrent.log_decay, spec.head_dim
        sums = kept_by_chunks(length, state_dim=width, width=width, decay_dims=int(decays))
        return spec.num_heads * (sums + 11.0 * width)

    def log_decay(self, x_BTD: Tensor, position: Position | None) -> Tensor | None:
        """Logarithm of the decay before each token, None where nothing decays.

        Shapes: -> BNT, broadcastable, or of each component of the key, BNTH
        """
        return None

    def feature(self, x_BNTH: Tensor, *, is_key: bool) -> Tensor:
        """The map applied to queries and keys instead of the softmax; positions rotate what it gives."""
        return x_BNTH

    def combine(
        self, q: Tensor, k: Tensor, v: Tensor, turned: tuple[Tensor, Tensor], sums: "Sums", x_BTD: Tensor
    ) -> Tensor:
        """Heads from the features, plain and as positions turned them; in single precision at least.

        Shapes: -> BNTH
        """
        return sums(*turned, v)

    def state_in(self, cache: Any) -> StateCache | None:
        """What a cache keeps of this layer; None where it holds keys.

        Raises: IncompatibleError for a variant that cannot go on from keys
        """
        layer = cache.layers[self.layer] if self.layer < len(cache.layers) else None
        if isinstance(layer, StateCache):
            return layer
        if not self.reads_keys:
            raise IncompatibleError(
                f"attention={self.name} keeps a state and reads no keys from a cache, as peft=prefix_tuning "
                "and cache_implementation=static give; use another peft method, or attention=full"
            )
        return None

    def finish(self, mixed_BNTH: Tensor, x_BTD: Tensor) -> Tensor:
        """Heads to the model's width."""
        return self.o_proj(mixed_BNTH.to(x_BTD.dtype).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def forward(
        self,
        x_BTD: Tensor,
        view: View,
        *,
        position: Position | None = None,
        cache: Any = None,
        memory_BSD: Tensor | None = None,
    ) -> Tensor:
        self.watch(x_BTD, x_BTD, x_BTD, view, position)
        q = self.project_queries(x_BTD)
        k, v = self.project_keys(x_BTD) if memory_BSD is None else self.read_memory(memory_BSD, cache)
        kept, key_position = None, view.query_position_BT
        if cache is not None and memory_BSD is None:
            kept = self.state_in(cache)
            if kept is None:
                k, v, view = self.read(cache, k, v, view)
                key_position = view.key_position_BS
        q, k = self.feature(q, is_key=False), self.feature(k, is_key=True)
        turned = (q, k)
        if position is not None:
            turned = (
                position.rotate(q, view.query_position_BT, is_key=False),
                position.rotate(k, key_position, is_key=True),
            )
        # Of two sequences no token is nearer to another: nothing decays between them.
        decay = None if self.cross else self.log_decay(x_BTD, position)
        sums = Sums(view, decay, kept, num_heads=self.num_heads)
        mixed = self.combine(q, k, v, turned, sums, x_BTD)
        if kept is not None:
            kept.seen += q.shape[2]
        return self.finish(mixed, x_BTD)


class Sums:
    """The decayed sums over what each token of a view reads, continued from and kept in a cache's state."""

    def __init__(
        self, view: View, log_decay: Tensor | None, kept: StateCache | None, *, num_heads: int
    ) -> None:
        self.view, self.log_decay, self.kept, self.num_heads = view, log_decay, kept, num_heads

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, *, name: str = "state") -> Tensor:
        """The sums of each token; `name` is the attribute of the cache that holds their state.

        Shapes: q BNTH, k BNSH, v BNSE -> BNTE
        """
        view, padding, decay = self.view, self.view.padding_BS, self.log_decay
        causal = view.is_causal and q.shape[2] == k.shape[2]
        if padding is not None and not view.cross:
            # Padding adds nothing, and no time passes over it.
            real = padding[:, None, padding.shape[1] - k.shape[2] :]
            k = k * real[..., None].to(k.dtype)
            if decay is not None:
                step = real if decay.dim() == 3 else real[..., None]
                decay = decay * step.to(decay.dtype)
        mixed = None
        if self.kept is not None or causal:
            state = None if self.kept is None else getattr(self.kept, name)
            mixed, state = chunked_linear(q, k, v, log_decay=decay, state=state, document_BT=view.document_BS)
            if self.kept is not None:
                setattr(self.kept, name, state)
        if mixed is not None and (view.is_causal or view.past):
            return mixed
        if decay is not None and decay.shape[2] == 1:
            decay = decay.expand(*decay.shape[:2], k.shape[2])
        return parallel_linear(q, k, v, log_decay=decay, allowed=self._allowed(q, k))

    def _allowed(self, q: Tensor, k: Tensor) -> Tensor:
        rows = torch.arange(q.shape[2], device=q.device)
        columns = torch.arange(k.shape[2], device=q.device)
        found: Tensor = self.view.remember(
            ("recurrent", q.shape[2]), lambda: self.view.allowed(None, self.num_heads, rows, columns)
        )
        return found
