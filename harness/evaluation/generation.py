"""Answers to many prompts: token by token where a decoding allows, else in batches of similar length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from harness.ops.decode import Ended

Draw = Callable[[Tensor, Tensor, Sequence[int]], Tensor]
"""(input_BT, mask_BT, which prompts) -> new tokens BS, padded right; what a Decoding does."""


class StopStrings:
    """Whether new text holds a stop string; only the tokens that can hold it are looked at.

    State: which tokens can end a stop string, as far as they were met
    """

    def __init__(self, stops: Sequence[str], tokenizer: Any) -> None:
        self.stops = [stop for stop in stops if stop]
        self.tokenizer = tokenizer
        # A token holds at least one byte but for special ones, so this many tokens hold every stop string.
        self.reach = max((len(stop.encode()) for stop in self.stops), default=0) + 4
        self.last = {stop[-1] for stop in self.stops}
        self.may_end: dict[int, bool] = {}

    def __call__(self, new: Sequence[int]) -> bool:
        if not self.stops or not self._may_end(new[-1]):
            return False
        return self.found(new[-self.reach :])

    def found(self, new: Sequence[int]) -> bool:
        """Whether a stop string stands anywhere in these tokens."""
        text = self.tokenizer.decode(new)
        return any(stop in text for stop in self.stops)

    def _may_end(self, token: int) -> bool:
        """Whether the token's own text has the last character of a stop; one beyond ASCII may be in parts."""
        if token not in self.may_end:
            text = self.tokenizer.decode([token])
            self.may_end[token] = any(end in text or not end.isascii() for end in self.last)
        return self.may_end[token]

    def ended(self) -> Ended | None:
        """For a decoding job; None where nothing stops it."""
        return self if self.stops else None


class StopAt:
    """Stopping criterion for transformers' generate: a row ends once its new text holds a stop string.

    Shapes: ids_BT -> B bools
    State: how long the prompt is, known at the first call; one instance serves one call of generate
    """

    def __init__(self, stops: StopStrings) -> None:
        self.stops, self.prompt_length = stops, -1

    def __call__(self, ids_BT: Tensor, scores: Any = None, **_: Any) -> Tensor:
        if self.prompt_length < 0:
            self.prompt_length = ids_BT.shape[1] - 1
        ended = [self.stops.found(new) for new in ids_BT[:, self.prompt_length :].tolist()]
        return torch.tensor(ended, device=ids_BT.device)


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
    on_progress: Callable[[int, int], None] = lambda done, total: None,
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
        new_BS = draw(ids_BT.to(device), mask_BT.to(device), batch).tolist()
        for index, tokens in zip(batch, new_BS, strict=True):
            answers[index] = tokens
        on_progress(len(prompts) - len(order), len(prompts))
    return answers


def until_eos(tokens: Sequence[int], eos_ids: Sequence[int]) -> list[int]:
    """The tokens before the first end-of-sequence."""
    ends = [position for position, token in enumerate(tokens) if token in set(eos_ids)]
    return list(tokens[: ends[0]] if ends else tokens)
