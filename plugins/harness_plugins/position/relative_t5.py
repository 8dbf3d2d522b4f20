"""T5's relative positions: one learned scalar a head for each bucket of distances."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness import ConfigError, Method, ModelSpec, Position, hookimpl


class RelativeT5(Position):
    """score + r_bucket(k - q), shared by all layers; buckets grow with the distance.

    Paper: Raffel et al. 2019, arXiv:1910.10683, section 2.1
    Raises: ConfigError for fewer than four buckets, or distances that the exact buckets already cover
    """

    name = "relative_t5"
    keeps_scores = True
    changes = frozenset({"scores"})

    @dataclass(frozen=True, kw_only=True)
    class Config(Position.Config):
        num_buckets: int = 32
        """Learned scalars a head."""
        max_distance: int = 128
        """Distance in tokens beyond which all share the last bucket."""

        def __post_init__(self) -> None:
            if self.num_buckets < 4 or self.num_buckets % 4:
                raise ConfigError(f"position.num_buckets={self.num_buckets} must be a multiple of 4")
            if self.max_distance <= self.num_buckets // 2:
                raise ConfigError(
                    f"position.max_distance={self.max_distance} must exceed half of "
                    f"position.num_buckets={self.num_buckets}"
                )

    config: Config

    def build(self, spec: ModelSpec) -> None:
        self.table = nn.Embedding(self.config.num_buckets, spec.num_heads)

    def has_bias(self) -> bool:
        return True

    def bias(self, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        bucket = self.bucket(k - q)
        if bucket.dim() == 4 and bucket.shape[1] == 1 and h.numel() == h.shape[1]:
            # One lookup for all heads; indexing [bucket, h] has a far slower backward.
            return F.embedding(bucket[:, 0], self.table.weight[:, h.flatten()]).permute(0, 3, 1, 2)
        return self.table.weight[bucket, h]

    def bucket(self, distance: Tensor) -> Tensor:
        """Bucket of k - q: half of them exact, half logarithmic up to max_distance."""
        count = self.config.num_buckets
        offset = torch.zeros_like(distance)
        if self.bidirectional:
            count //= 2
            offset = (distance > 0).long() * count
            distance = distance.abs()
        else:
            distance = (-distance).clamp_min(0)
        exact = count // 2
        ratio = math.log(self.config.max_distance / exact)
        far = exact + (torch.log(distance.clamp_min(1).float() / exact) / ratio * (count - exact)).long()
        return offset + torch.where(distance < exact, distance, far.clamp_max(count - 1))


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [RelativeT5]
