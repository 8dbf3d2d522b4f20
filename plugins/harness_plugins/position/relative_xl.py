"""Transformer-XL's relative positions: queries read a projected sinusoid of the distance."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from harness import ConfigError, Method, ModelSpec, Position, View, hookimpl, inverse_frequencies


class RelativeXl(Position):
    """(q_i + u) k_j + (q_i + v) W_R R_(i-j): R is a sinusoid, W_R a layer's own, u and v are shared.

    Paper: Dai et al. 2019, arXiv:1901.02860, section 3.3; W_R takes D x N H weights a layer
    Differs: u and v start at zero; no segments are carried over (a cache of keys does the same exactly)
    Raises: ConfigError for an odd width, or heads of which positions may use a part only
    """

    name = "relative_xl"
    keeps_scores = True
    changes = frozenset({"scores"})

    def build(self, spec: ModelSpec) -> None:
        if spec.dim % 2:
            raise ConfigError(
                f"position=relative_xl pairs sines and cosines, but model.dim={spec.dim} is odd; make it even"
            )
        if spec.rotary_dim not in (None, spec.head_dim):
            raise ConfigError(
                f"position=relative_xl reads whole heads of {spec.head_dim}, but this attention leaves "
                f"{spec.rotary_dim} components to positions; use position=rope"
            )
        width = spec.num_heads * spec.head_dim
        self.projections = nn.ModuleList(
            nn.Linear(spec.dim, width, bias=False) for _ in range(spec.num_layers)
        )
        self.content_bias = nn.Parameter(torch.zeros(width))
        self.position_bias = nn.Parameter(torch.zeros(width))

    def rotate(self, x_BNTH: Tensor, position_BT: Tensor, *, is_key: bool) -> Tensor:
        return x_BNTH if is_key else x_BNTH + self._heads(self.content_bias)  # eq. 5, terms (a) and (c)

    def has_query_bias(self) -> bool:
        return True

    def query_bias(self, layer: int, q_BNTH: Tensor, view: View) -> Callable[[Tensor, Tensor], Tensor]:
        # Queries come with u added; terms (b) and (d) of eq. 5 want v in its place.
        q_BNTH = q_BNTH + self._heads(self.position_bias - self.content_bias)
        few = view.past > 0 and view.num_queries * (self.spec.num_heads - 1) < self.spec.dim
        if (few or view.shifted) and type(self.projections[layer]) is nn.Linear:
            return self._by_angles(layer, q_BNTH, view)
        reach = int(view.key_position_BS.max()) if view.shifted else view.num_keys - 1
        least = -reach if self.bidirectional else 0
        distances = torch.arange(least, reach + 1, device=q_BNTH.device)
        r_LNH = self.projections[layer](self.sinusoid(distances, q_BNTH.dtype)).unflatten(
            1, (self.spec.num_heads, -1)
        )

        def term(rows: Tensor, slots: Tensor) -> Tensor:
            of_distance = torch.einsum("bnth,lnh->bntl", q_BNTH[:, :, rows], r_LNH)
            distance = view.query_position_BT[:, rows, None] - view.key_position_BS[:, None, slots]
            index = (distance.clamp(least, reach) - least)[:, None]
            return of_distance.gather(3, index.expand(*of_distance.shape[:3], -1))

        return term

    def _by_angles(self, layer: int, q_BNTH: Tensor, view: View) -> Callable[[Tensor, Tensor], Tensor]:
        """The same by sin(a - b) and cos(a - b): a product of what queries and keys know alone.

        Cheaper for few queries, as in decoding, since R is not projected for every distance.
        """
        wide = torch.float64 if q_BNTH.dtype == torch.float64 else torch.float32
        projection: Any = self.projections[layer]
        weight_NHD = projection.weight.to(wide).unflatten(0, (self.spec.num_heads, -1))
        of_sine, of_cosine = torch.einsum("bnth,nhd->bntd", q_BNTH.to(wide), weight_NHD).chunk(2, dim=-1)
        sine, cosine, told_BSD = view.remember(("relative_xl", wide), lambda: self._angles(view, wide))
        read_BNTD = torch.cat(
            (of_sine * sine + of_cosine * cosine, of_cosine * sine - of_sine * cosine), dim=-1
        )

        def term(rows: Tensor, slots: Tensor) -> Tensor:
            found: Tensor = read_BNTD[:, :, rows] @ told_BSD[:, slots].transpose(1, 2)[:, None]
            return found.to(q_BNTH.dtype)

        return term

    def _angles(self, view: View, wide: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Sines and cosines of queries' positions, and what keys know, the same for every layer.

        Shapes: -> B1T(D/2) twice, BSD
        """
        device = view.key_position_BS.device
        frequencies = inverse_frequencies(self.spec.dim, 10000.0, device).to(wide)
        angle_q = view.query_position_BT.to(wide)[:, None, :, None] * frequencies
        angle_k = view.key_position_BS.to(wide)[:, :, None] * frequencies
        return angle_q.sin(), angle_q.cos(), torch.cat((angle_k.cos(), angle_k.sin()), dim=-1)

    def sinusoid(self, distances: Tensor, dtype: torch.dtype) -> Tensor:
        """R: sines, then cosines of a distance over wavelengths from 2 pi to 10000 * 2 pi tokens.

        Shapes: L -> LD
        """
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        frequencies = inverse_frequencies(self.spec.dim, 10000.0, distances.device).to(wide)
        angle = distances.to(wide)[:, None] * frequencies
        return torch.cat((angle.sin(), angle.cos()), dim=1).to(dtype)

    def _heads(self, bias: Tensor) -> Tensor:
        """Shapes: (n H) -> N1H"""
        return bias.view(self.spec.num_heads, 1, -1)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [RelativeXl]
