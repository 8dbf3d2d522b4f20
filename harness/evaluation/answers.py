"""Answers of a Subject to prompts, drawn by a decoding method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from harness.axes.decoding import Decoding
from harness.axes.evaluator import Subject
from harness.errors import TaskError
from harness.evaluation.generation import in_batches, until_eos


class Answers(NamedTuple):
    """Texts without special tokens, in the order of the prompts."""

    texts: list[str]
    tokens: list[list[int]]
    """New tokens before the end of the sequence."""
    truncated: int
    """Prompts that lost tokens on the left."""


def answer(
    subject: Subject,
    messages: Sequence[str],
    *,
    max_new_tokens: int,
    decoding: Decoding | None = None,
    batch_size: int = 64,
) -> Answers:
    """Answers to users' messages, put into the subject's template first.

    Raises: TaskError where the window leaves no room for a prompt
    """
    decoding = decoding or subject.decoding
    assert decoding is not None, "an evaluator that generates declares `uses = {'decoding'}`"
    room = subject.max_length - max_new_tokens
    if room < 1:
        raise TaskError(
            f"generating {max_new_tokens} tokens leaves no room for a prompt in a window of "
            f"{subject.max_length} tokens; lower max_new_tokens"
        )
    tokenizer = subject.tokenizer
    prompts = [
        tokenizer.encode(subject.prompt(message), add_special_tokens=subject.template is None)
        for message in messages
    ]
    ready = prepare(subject)

    @torch.inference_mode()
    def draw(ids_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
        return decoding.generate(ready, ids_BT, mask_BT, max_new_tokens=max_new_tokens, seed=subject.seed)

    new = in_batches(
        [prompt[-room:] for prompt in prompts],
        draw,
        pad_id=ready.generation_config.pad_token_id,  # type: ignore[union-attr, arg-type]
        device=subject.device,
        batch_size=batch_size,
        new_tokens=max_new_tokens,
    )
    tokens = [until_eos(row, [tokenizer.eos_token_id]) for row in new]
    texts = tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return Answers(texts, tokens, sum(len(prompt) > room for prompt in prompts))


def prepare(subject: Subject) -> torch.nn.Module:
    """The subject's model, its generation config knowing the tokenizer's special tokens."""
    model: torch.nn.Module = subject.model
    config = model.generation_config
    tokenizer = subject.tokenizer
    config.eos_token_id = tokenizer.eos_token_id  # type: ignore[union-attr]
    bos = tokenizer.bos_token_id  # a decoder behind an encoder starts with it
    config.bos_token_id = tokenizer.eos_token_id if bos is None else bos  # type: ignore[union-attr]
    pad = tokenizer.pad_token_id
    config.pad_token_id = tokenizer.eos_token_id if pad is None else pad  # type: ignore[union-attr]
    return model
