"""How a policy is sampled: where its answers end, and from the distribution that is learned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from harness.data.template import Template


def end_ids(model: Any, template: Template) -> list[int]:
    """Tokens at which an answer ends: the template's, the tokenizer's, and those the checkpoint states."""
    stated = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    listed = stated if isinstance(stated, list) else [stated]
    return sorted({*template.end_ids(), *(end for end in listed if end is not None)})


@contextmanager
def plain_sampling(
    model: nn.Module, *, temperature: float, end_ids: Sequence[int], pad_id: int | None
) -> Iterator[None]:
    """Sample from the whole distribution, whatever a checkpoint states of penalties and cut-offs."""
    from transformers import GenerationConfig

    # An adapter's `generate` hands its own settings to the model below it.
    kept = [(m, m.generation_config) for m in model.modules() if getattr(m, "generation_config", None)]
    try:
        for module, config in kept:
            module.generation_config = GenerationConfig(  # type: ignore[assignment]
                do_sample=True,
                temperature=temperature,
                top_k=0,
                top_p=1.0,
                eos_token_id=list(end_ids),
                pad_token_id=pad_id,
                bos_token_id=config.bos_token_id,  # type: ignore[union-attr]
                decoder_start_token_id=config.decoder_start_token_id,  # type: ignore[union-attr]
            )
        yield
    finally:
        for module, config in kept:
            module.generation_config = config


class LogProbRecorder:
    """A logits processor for `generate` that keeps the log-probabilities of what is sampled at a temperature.

    `generate` divides by the temperature after the processors that it is handed.
    Shapes: scores B x V, one distribution at a time, so that memory does not grow with V times the answer
    """

    def __init__(self, temperature: float) -> None:
        self._temperature = temperature
        self._last_BV: Tensor | None = None
        self._found: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self._take(input_ids[:, -1])
        self._last_BV = (scores.float() / self._temperature).log_softmax(-1)
        return scores

    def log_probs(self, last_B: Tensor) -> Tensor:
        """Of all sampled tokens (B x T), once the last ones are known."""
        self._take(last_B)
        return torch.stack(self._found, dim=1)

    def _take(self, tokens_B: Tensor) -> None:
        if self._last_BV is not None:
            self._found.append(self._last_BV.gather(1, tokens_B[:, None])[:, 0])
            self._last_BV = None
