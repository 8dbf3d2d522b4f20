"""Batched generation: prompts of similar length together, left-padded, stopped at strings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Draw = Callable[[Tensor, Tensor], Tensor]
"""(input_BT, mask_BT) -> new tokens BS, padded right; what a Decoding or transformers' generate does."""


class StopAt:
    """Stopping criterion for transformers' generate: a row ends once its new text holds a stop string.

    Shapes: ids_BT -> B bools
    State: the rows that have ended; one instance serves one call of generate
    """

    def __init__(self, stops: Sequence[str], tokenizer: Any, prompt_length: int) -> None:
        self.stops = [stop for stop in stops if stop]
        self.tokenizer = tokenizer
        self.prompt_length = prompt_length
        # A token holds at least one byte but for special ones, so this many tokens hold every stop string.
        self.reach = max((len(stop.encode()) for stop in self.stops), default=0) + 4
        self.done_B: Tensor | None = None

    def __call__(self, ids_BT: Tensor, scores: Any = None, **_: Any) -> Tensor:
        if self.done_B is None or len(self.done_B) != len(ids_BT):
            self.done_B = torch.zeros(len(ids_BT), dtype=torch.bool)
        if self.stops:
            rows = (~self.done_B).nonzero()[:, 0]
            tail = max(self.prompt_length, ids_BT.shape[1] - self.reach)
            texts = self.tokenizer.batch_decode(ids_BT[rows.to(ids_BT.device), tail:])
            self.done_B[rows] = torch.tensor([any(stop in text for stop in self.stops) for text in texts])
        return self.done_B.to(ids_BT.device)


def pad_left(sequences: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Ids and mask of a left-padded batch.

    Shapes: B sequences -> ids BT, mask BT (1 = token)
    """
    width = max(map(len, sequences))
    ids_BT = torch.full((len(sequences), width), pad_id)
    mask_BT = torch.zeros_like(ids_BT)
    for row, sequence in enumerate(sequences):
        ids_BT[row, width - len(sequence) :] = torch.tensor(sequence)
        mask_BT[row, width - len(sequence) :] = 1
    return ids_BT, mask_BT


def in_batches(
    prompts: Sequence[Sequence[int]],
    draw: Draw,
    *,
    pad_id: int,
    device: str | torch.device,
    batch_size: int,
    new_tokens: int,
    batch_tokens: int = 32768,
) -> list[list[int]]:
    """New tokens of every prompt, in the prompts' order; similar lengths share a batch.

    Units: batch_tokens bounds rows times (prompt + new tokens), which bounds the cache
    """
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    answers: list[list[int]] = [[] for _ in prompts]
    while order:
        rows = max(1, min(batch_size, batch_tokens // (len(prompts[order[0]]) + new_tokens)))
        batch, order = order[:rows], order[rows:]
        ids_BT, mask_BT = pad_left([prompts[index] for index in batch], pad_id)
        new_BS = draw(ids_BT.to(device), mask_BT.to(device)).tolist()
        for index, tokens in zip(batch, new_BS, strict=True):
            answers[index] = tokens
    return answers


def until_eos(tokens: Sequence[int], eos_ids: Sequence[int]) -> list[int]:
    """The tokens before the first end-of-sequence."""
    ends = [position for position, token in enumerate(tokens) if token in set(eos_ids)]
    return list(tokens[: ends[0]] if ends else tokens)
