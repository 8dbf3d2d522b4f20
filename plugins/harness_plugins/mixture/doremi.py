"""DoReMi: domains on which a small proxy lags furthest behind a reference are drawn more often."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from harness import ConfigError, Method, Mixture, hookimpl

CONTEXT = 4
DIM = 32


class DoReMi(Mixture):
    """Group distributionally robust training of a proxy; the average of its domain weights is the mixture.

    Paper: Xie et al. 2023, arXiv:2305.10429, algorithm 1
    Differs: proxy and reference are feed-forward models over 4 tokens, trained here on one thread for
    `steps` steps, instead of 280 M-parameter transformers
    """

    name = "doremi"

    @dataclass(frozen=True, kw_only=True)
    class Config(Mixture.Config):
        steps: int = 200
        """Steps of the reference, and of the proxy."""
        batch_size: int = 128
        """Predicted tokens of each domain in a step."""
        learning_rate: float = 3e-3
        """Learning rate of AdamW."""
        step_size: float = 1.0
        """Step of the domain weights on the excess loss (eta)."""
        smoothing: float = 1e-3
        """Share of uniform weights mixed in after each step (c)."""

        def __post_init__(self) -> None:
            if min(self.steps, self.batch_size) < 1:
                raise ConfigError("mixture=doremi needs steps >= 1 and batch_size >= 1")
            if min(self.learning_rate, self.step_size) <= 0:
                raise ConfigError("mixture=doremi needs learning_rate > 0 and step_size > 0")
            if not 0 <= self.smoothing <= 1:
                raise ConfigError(f"mixture.smoothing={self.smoothing} must lie in [0, 1]")

    config: Config

    @classmethod
    def trial(cls, domains: Sequence[str]) -> Config:
        return cls.Config(steps=5, batch_size=8)

    def weights(self, num_tokens: Mapping[str, int]) -> dict[str, float]:
        names = sorted(num_tokens)
        arrays = [np.asarray(self.tokens[name]) for name in names]
        sizes_K = torch.tensor([float(num_tokens[name]) for name in names])
        vocab_size = 1 + max(int(array.max()) for array in arrays)
        reference = self._trained(arrays, vocab_size, sizes_K / sizes_K.sum(), None)[0]
        _, average_K = self._trained(arrays, vocab_size, torch.full_like(sizes_K, 1 / len(names)), reference)
        return {name: float(weight) for name, weight in zip(names, average_K, strict=True)}

    def _trained(
        self, arrays: Sequence[np.ndarray], vocab_size: int, weights_K: Tensor, reference: nn.Module | None
    ) -> tuple[nn.Module, Tensor]:
        """A small model, and the mean of its domain weights; they move only against a reference."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = _small(vocab_size)
        rng = np.random.default_rng(0)
        optimizer = torch.optim.AdamW(model.parameters(), lr=self.config.learning_rate)
        sum_K = torch.zeros_like(weights_K)
        for _ in range(self.config.steps):
            context_NC, target_N = _drawn(arrays, rng, self.config.batch_size)
            loss_KM = _losses(model, context_NC, target_N, len(arrays))
            if reference is not None:
                with torch.no_grad():
                    excess_KM = loss_KM.detach() - _losses(reference, context_NC, target_N, len(arrays))
                weights_K = robust_step(
                    weights_K, excess_KM, step_size=self.config.step_size, smoothing=self.config.smoothing
                )
            sum_K += weights_K
            optimizer.zero_grad()
            (weights_K * loss_KM.mean(1)).sum().backward()
            optimizer.step()
        mean_K = sum_K.double() / self.config.steps
        return model.eval(), mean_K / mean_K.sum()


def robust_step(weights_K: Tensor, excess_KM: Tensor, *, step_size: float, smoothing: float) -> Tensor:
    """Domain weights after one exponentiated-gradient step on the excess loss (algorithm 1).

    Shapes: excess_KM holds M tokens of each domain; every one is clipped at 0 before their mean is taken
    """
    raised_K = weights_K * torch.exp(step_size * excess_KM.clamp(min=0).mean(1))
    return (1 - smoothing) * raised_K / raised_K.sum() + smoothing / len(weights_K)


def _small(vocab_size: int) -> nn.Module:
    return nn.Sequential(
        nn.Embedding(vocab_size, DIM),
        nn.Flatten(),
        nn.Linear(CONTEXT * DIM, 2 * DIM),
        nn.ReLU(),
        nn.Linear(2 * DIM, vocab_size),
    )


def _drawn(arrays: Sequence[np.ndarray], rng: np.random.Generator, size: int) -> tuple[Tensor, Tensor]:
    """`size` contexts and next tokens of each domain, domain after domain."""
    rows = []
    for array in arrays:
        starts = rng.integers(0, max(1, len(array) - CONTEXT), size=size)
        tokens = array if len(array) > CONTEXT else np.resize(array, CONTEXT + 1)
        rows.append(tokens[starts[:, None] + np.arange(CONTEXT + 1)])
    joined = torch.from_numpy(np.concatenate(rows).astype(np.int64))
    return joined[:, :-1], joined[:, -1]


def _losses(model: nn.Module, context_NC: Tensor, target_N: Tensor, num_domains: int) -> Tensor:
    """Loss of each domain's tokens (K x M)."""
    loss_N = nn.functional.cross_entropy(model(context_NC), target_N, reduction="none")
    return loss_N.view(num_domains, -1)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [DoReMi]
