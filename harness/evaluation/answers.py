"""Answers of a Subject to prompts, drawn by a decoding method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from harness.axes.decoding import Decoding
from harness.axes.evaluator import Subject
from harness.axes.instruction import Conversation, Role, Turn
from harness.data.template import IGNORED, Template
from harness.errors import TaskError
from harness.evaluation.generation import in_batches, until_eos
from harness.evaluation.requests import ScoreRequest
from harness.ops.decode import Job, decode
from harness.ops.drawing import Rule, special_ids
from harness.ops.searching import generate, reads_tokens_alone
from harness.rng import draw_seed


class Answers(NamedTuple):
    """Texts without special tokens, in the order of the prompts."""

    texts: list[str]
    tokens: list[list[int]]
    """New tokens before the end of the sequence."""
    truncated: int
    """Prompts that lost tokens on the left."""
    prompts: list[list[int]]
    """The tokens that the model was given, after the cut."""


def answer(
    subject: Subject,
    messages: Sequence[str],
    *,
    max_new_tokens: int,
    decoding: Decoding | None = None,
    batch_size: int = 64,
) -> Answers:
    """Answers to users' messages, put into the subject's template first.

    What is drawn for a prompt follows from the subject's seed and the prompt's place among the messages.
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
    given = [prompt[-room:] for prompt in prompts]
    seeds = [draw_seed(seed=subject.seed, prompt=index) for index in range(len(given))]
    new = draw_answers(
        subject, given, decoding=decoding, max_new_tokens=max_new_tokens, seeds=seeds, batch_size=batch_size
    )
    tokens = [until_eos(row, special_ids(subject.model)[0]) for row in new]
    texts = tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return Answers(texts, tokens, sum(len(prompt) > room for prompt in prompts), given)


def answer_request(subject: Subject, message: str, reference: str) -> ScoreRequest:
    """A reference answer, and the end after it, as what a chat model learns after a user's message; a base
    model reads both as one text, with a space between.

    Raises: DataError where the chat template hides the answer
    """
    if subject.template is None:
        tokenizer = subject.tokenizer
        context = tokenizer.encode(subject.prompt(message))
        return ScoreRequest(context, tokenizer.encode(f" {reference}", add_special_tokens=False))
    for method in subject.prompts:
        message = method.prompt(message)
    turns = (Turn(role=Role.user, text=message), Turn(role=Role.assistant, text=reference))
    ids, labels = Template(subject.tokenizer).encode(Conversation(id="", turns=turns, source=""))
    (learned,) = np.nonzero(labels != IGNORED)
    first, last = int(learned[0]), int(learned[-1])
    return ScoreRequest(ids[:first].tolist(), ids[first : last + 1].tolist())


def draw_answers(
    subject: Subject,
    prompts: Sequence[Sequence[int]],
    *,
    decoding: Decoding,
    max_new_tokens: int,
    seeds: Sequence[int],
    batch_size: int,
) -> list[list[int]]:
    """New tokens of every prompt; rows join and leave the batch one by one where the decoding allows."""
    model = prepare(subject)
    ends, pad = special_ids(model)
    rule = decoding.rule()
    if rule is not None and reads_tokens_alone(model):
        jobs = [
            Job(ids=ids, max_new_tokens=max_new_tokens, seed=seed)
            for ids, seed in zip(prompts, seeds, strict=True)
        ]
        bits = decoding.config.cache_bits
        return decode(
            model,
            jobs,
            rule,
            ends=ends,
            pad=pad,
            batch_size=batch_size,
            cache_bits=bits,
            on_progress=subject.on_progress,
        )

    @torch.inference_mode()
    def draw(ids_BT: torch.Tensor, mask_BT: torch.Tensor, which: Sequence[int]) -> torch.Tensor:
        own = [seeds[index] for index in which]
        return decoding.generate(model, ids_BT, mask_BT, max_new_tokens=max_new_tokens, seeds=own)

    return in_batches(
        prompts,
        draw,
        pad_id=pad,
        device=subject.device,
        batch_size=batch_size,
        new_tokens=max_new_tokens,
        on_progress=subject.on_progress,
    )


def greedy_tokens(
    subject: Subject, prompts: Sequence[Sequence[int]], *, max_new_tokens: int, batch_size: int = 16
) -> list[list[int]]:
    """The likeliest token after the other, up to an end token, whatever decoding the cell has chosen."""
    model = prepare(subject)
    ends, pad = special_ids(model)
    if reads_tokens_alone(model):
        jobs = [Job(ids=ids, max_new_tokens=max_new_tokens) for ids in prompts]
        new = decode(
            model,
            jobs,
            Rule(),
            ends=ends,
            pad=pad,
            batch_size=batch_size,
            on_progress=subject.on_progress,
        )
    else:
        seeds = [0] * len(prompts)

        def draw(ids_BT: torch.Tensor, mask_BT: torch.Tensor, which: Sequence[int]) -> torch.Tensor:
            return generate(
                model,
                ids_BT,
                mask_BT,
                options={"do_sample": False},
                max_new_tokens=max_new_tokens,
                seeds=seeds[: len(which)],
            )

        new = in_batches(
            prompts,
            draw,
            pad_id=pad,
            device=subject.device,
            batch_size=batch_size,
            new_tokens=max_new_tokens,
            on_progress=subject.on_progress,
        )
    return [until_eos(tokens, ends) for tokens in new]


def prepare(subject: Subject) -> torch.nn.Module:
    """The subject's model, its generation config knowing the tokenizer's special tokens beside its own."""
    model: torch.nn.Module = subject.model
    config = model.generation_config
    tokenizer = subject.tokenizer
    ends = list(dict.fromkeys([*special_ids(model)[0], tokenizer.eos_token_id]))
    config.eos_token_id = ends if len(ends) > 1 else ends[0]  # type: ignore[union-attr, assignment]
    bos = tokenizer.bos_token_id  # a decoder behind an encoder starts with it
    config.bos_token_id = tokenizer.eos_token_id if bos is None else bos  # type: ignore[union-attr]
    pad = tokenizer.pad_token_id
    config.pad_token_id = tokenizer.eos_token_id if pad is None else pad  # type: ignore[union-attr]
    return model
