"""Sequences that a model writes, to be trained on where there are no data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def write_sequences(
    model: nn.Module, *, count: int, length: int, greedy: int, generator: torch.Generator
) -> Tensor:
    """A random first token, `greedy` likeliest ones, then sampled ones.

    Paper: Liu et al. 2023, arXiv:2305.17888, section 2.1
    Shapes: -> count x length int64
    """
    causal: Any = model
    device = causal.get_input_embeddings().weight.device
    vocabulary = causal.get_output_embeddings().weight.shape[0]
    ids_NT = torch.randint(vocabulary, (count, 1), generator=generator).to(device)
    past, fed = None, ids_NT
    for place in range(1, length):
        output = causal(input_ids=fed, past_key_values=past, use_cache=True)
        past, logits_NV = output.past_key_values, output.logits[:, -1].float()
        if place <= greedy:
            fed = logits_NV.argmax(-1, keepdim=True)
        else:
            fed = torch.multinomial(logits_NV.softmax(-1).cpu(), 1, generator=generator).to(device)
        ids_NT = torch.cat([ids_NT, fed], dim=1)
    return ids_NT
