"""Sequences that a model writes, to be trained on where there are no data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from harness import calibration_inputs


@torch.no_grad()
def write_sequences(
    model: nn.Module, *, count: int, length: int, greedy: int, generator: torch.Generator
) -> Tensor:
    """A random first token, `greedy` likeliest ones, then sampled ones.

    A model with an encoder writes the halves that `calibration_inputs` tells apart in turn: the source, of a
    random token, and then what it continues that source with.

    Paper: Liu et al. 2023, arXiv:2305.17888, section 2.1
    Shapes: -> count x length int64
    """
    causal: Any = model

    def start() -> Tensor:
        vocabulary = causal.get_output_embeddings().weight.shape[0]
        first_N1 = torch.randint(vocabulary, (count, 1), generator=generator)
        return first_N1.to(causal.get_input_embeddings().weight.device)

    def write(size: int, **source: Tensor) -> Tensor:
        return _continue(causal, start(), size, greedy, generator, source)

    if "encoder_input_ids" not in calibration_inputs(model, torch.empty(1, 2, device="meta")):
        return write(length)
    source_NS = write(length // 2, encoder_hidden_states=causal.model.encode(start()))
    written_NT = write(length - length // 2, encoder_hidden_states=causal.model.encode(source_NS))
    return torch.cat([source_NS, written_NT], dim=1)


def _continue(
    causal: Any,
    ids_NT: Tensor,
    length: int,
    greedy: int,
    generator: torch.Generator,
    source: dict[str, Tensor],
) -> Tensor:
    past, fed = None, ids_NT
    for place in range(1, length):
        output = causal(input_ids=fed, past_key_values=past, use_cache=True, **source)
        past, logits_NV = output.past_key_values, output.logits[:, -1].float()
        if place <= greedy:
            fed = logits_NV.argmax(-1, keepdim=True)
        else:
            fed = torch.multinomial(logits_NV.softmax(-1).cpu(), 1, generator=generator).to(ids_NT.device)
        ids_NT = torch.cat([ids_NT, fed], dim=1)
    return ids_NT
