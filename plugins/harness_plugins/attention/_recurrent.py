"""What linear attention and retention share: one state a head instead of a growing cache."""

from typing import Any

import torch
from torch import Tensor

from harness import Attention, Position, StateCache, View, chunked_linear, parallel_linear


class Recurrent(Attention):
    """Attention without softmax: its past is a sum, so decoding costs the same at any length.

    A causal pass without documents or padding goes chunk by chunk (linear time); any other mask takes the
    quadratic form. A cache that holds keys (prefix tuning) is read in the quadratic form too.
    """

    recurrent = True
    keeps_scores = True

    def log_decay(self) -> Tensor:
        """Logarithm of each head's decay a token.

        Shapes: -> N
        """
        return torch.zeros(self.num_heads, device=self.q_proj.weight.device)

    def feature(self, x_BNTH: Tensor, *, is_key: bool) -> Tensor:
        """The map applied to queries and keys instead of the softmax."""
        return x_BNTH

    def finish(self, mixed_BNTE: Tensor, x_BTD: Tensor) -> Tensor:
        """Heads to the model's width; E holds the value width and whatever `values` added."""
        raise NotImplementedError

    def values(self, v_BNTH: Tensor) -> Tensor:
        """Values as they enter the sum."""
        return v_BNTH

    def forward(
        self,
        x_BTD: Tensor,
        view: View,
        *,
        position: Position | None = None,
        cache: Any = None,
        memory_BSD: Tensor | None = None,
    ) -> Tensor:
        q = self.project_queries(x_BTD)
        k, v = self.project_keys(x_BTD if memory_BSD is None else memory_BSD)
        if position is not None:
            q = position.rotate(q, view.query_position_BT, is_key=False)
            k = position.rotate(k, view.query_position_BT, is_key=True)
        layer = cache.layers[self.layer] if cache is not None and self.layer < len(cache.layers) else None
        if layer is not None and isinstance(layer, StateCache):
            q, k, v = self.feature(q, is_key=False), self.feature(k, is_key=True), self.values(v)
            if view.padding_BS is not None:
                k = k * view.padding_BS[:, None, view.past :, None].to(k.dtype)
            mixed = self.advance(q, k, v, layer, view)
        else:
            if cache is not None:
                k, v = cache.update(k, v, self.layer)
            q, k, v = self.feature(q, is_key=False), self.feature(k, is_key=True), self.values(v)
            mixed = self.mix(q, k, v, view)
        return self.finish(mixed, x_BTD)

    def advance(self, q: Tensor, k: Tensor, v: Tensor, layer: Any, view: View) -> Tensor:
        """New tokens read the state and enter it."""
        mixed, state = chunked_linear(q, k, v, log_decay=self.log_decay(), state=layer.state)
        layer.store(state, q.shape[2])
        if not view.is_causal and view.past == 0:
            return self.mix(q, k, v, view)
        return mixed

    def mix(self, q: Tensor, k: Tensor, v: Tensor, view: View) -> Tensor:
        """All tokens at once."""
        if view.is_causal and view.is_plain and q.shape[2] == k.shape[2]:
            return chunked_linear(q, k, v, log_decay=self.log_decay())[0]
        rows = torch.arange(q.shape[2], device=q.device)
        columns = torch.arange(k.shape[2], device=q.device)

        def allowed() -> Tensor:
            return view.allowed(None, self.num_heads, rows, columns)

        distance = (rows + view.past)[:, None] - columns[None, :]
        return parallel_linear(
            q,
            k,
            v,
            log_decay=self.log_decay(),
            distance=distance.abs(),
            allowed=view.remember(("recurrent", q.shape[2]), allowed),
        )
