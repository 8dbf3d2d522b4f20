"""Scoring and generating: our LM against lm-eval's `hf` model at its best batch size, in one run."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from bench import in_turn, median_ratio, show
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from harness.axes.evaluator import Subject
from harness.conformance._language import tokenizer
from harness.evaluation.lm import SubjectLM

pytestmark = pytest.mark.slow

DOCUMENTS, CONTEXT, CHOICE = 60, 271, 28
BATCH_SIZES = (1, 4, 8, 16)
"""Of `hf`; the fastest of them counts."""


def language_model(vocab_size: int) -> Any:
    """About 4 M parameters."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=512,
        eos_token_id=None,
        initializer_range=0.1,
    )
    return LlamaForCausalLM(config).eval()


def text(rng: random.Random, length: int) -> str:
    """So many tokens: letters of the alphabet are one each."""
    return "".join(rng.choices("abcdefghij ", k=length - 1)) + "."


class Naive:
    """One document at a time: its context once, then its choices on copies of the cache."""

    def __init__(self, model: Any) -> None:
        self.model, self.tokenizer = model, tokenizer()

    @torch.inference_mode()
    def loglikelihood(self, requests: Sequence[Instance], **_: Any) -> list[tuple[float, bool]]:
        answers = []
        for start in range(0, len(requests), 4):
            context = self.tokenizer(requests[start].args[0])["input_ids"]
            whole = [self.tokenizer("".join(r.args))["input_ids"] for r in requests[start : start + 4]]
            rest_BT = torch.tensor([ids[len(context) - 1 :] for ids in whole])
            cache = self.model(torch.tensor([context[:-1]]), logits_to_keep=1).past_key_values
            cache.batch_repeat_interleave(4)
            logits = self.model(rest_BT[:, :-1], past_key_values=cache).logits.log_softmax(-1)
            chosen = logits.gather(-1, rest_BT[:, 1:, None])[..., 0]
            greedy = (logits.argmax(-1) == rest_BT[:, 1:]).all(-1)
            answers += list(zip(chosen.sum(-1).tolist(), greedy.tolist(), strict=True))
        return answers


def compare(
    title: str,
    call: str,
    requests: Sequence[Instance],
    others: Mapping[str, Any],
    same: Callable[[Any, Any], bool],
) -> tuple[float, dict[str, float]]:
    """Processor time of `hf` at its best batch size over ours, and that of others; answers must agree."""
    model = language_model(len(tokenizer()))
    subject = Subject(model=model, tokenizer=tokenizer(), max_length=512)
    lms: dict[str, Any] = {
        f"lm-eval's hf, batches of {size}": HFLM(
            pretrained=model, tokenizer=tokenizer(), batch_size=size, max_length=512
        )
        for size in BATCH_SIZES
    }
    lms |= {"harness": SubjectLM(subject)} | {name: make(model) for name, make in others.items()}
    answers: dict[str, Any] = {}

    def ask(name: str) -> None:
        answers[name] = getattr(lms[name], call)(requests, disable_tqdm=True)

    found = in_turn({name: lambda name=name: ask(name) for name in lms}, rounds=3)
    rows = [(name, len(requests) / min(seconds)) for name, seconds in found.items()]
    show(title, ("model", "requests/s"), rows)
    for name, given in answers.items():
        assert all(same(*pair) for pair in zip(given, answers["harness"], strict=True)), name
    peers = [name for name in lms if name.startswith("lm-eval")]
    ratio = min(median_ratio(found, name, "harness") for name in peers)
    print(f"\nharness / hf at its best: {ratio:.2f}")
    return ratio, {name: median_ratio(found, name, "harness") for name in others}


def close(first: Any, second: Any) -> bool:
    """Log-probabilities of one answer, and whether it is the likeliest."""
    if isinstance(first, tuple):
        return close(first[0], second[0]) and first[1] == second[1]
    return abs(first - second) < 1e-3 * max(1.0, abs(first) / 100)


def test_four_choice_documents() -> None:
    rng = random.Random(0)
    pairs = []
    for _ in range(DOCUMENTS):
        context = text(rng, CONTEXT)
        pairs += [(context, " " + text(rng, CHOICE)) for _ in range(4)]
    requests = [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(pairs)]
    title = f"Scoring {DOCUMENTS} documents of four choices ({CONTEXT} + {CHOICE} tokens)"
    others = {"a loop that shares each document's context": Naive}
    ratio, naive = compare(title, "loglikelihood", requests, others, close)
    assert ratio > 3.0  # the tokens alone allow 3.1
    assert min(naive.values()) > 1.0


def test_rolling_texts() -> None:
    rng = random.Random(0)
    texts = [text(rng, rng.randrange(100, 1500)) for _ in range(24)]
    requests = [Instance("loglikelihood_rolling", {}, (text,), index) for index, text in enumerate(texts)]
    ratio, _ = compare(
        "Scoring 24 texts of 100 to 1,500 tokens", "loglikelihood_rolling", requests, {}, close
    )
    assert ratio > 1.0  # products and attention, which both compute, bound it by 1.2


def test_generating_from_prompts_of_mixed_lengths() -> None:
    rng = random.Random(0)
    texts = [text(rng, rng.randrange(20, 400)) for _ in range(24)]
    options = {"until": ["\n\n"], "max_gen_toks": 48, "do_sample": False}
    requests = [Instance("generate_until", {}, (text, options), index) for index, text in enumerate(texts)]
    title = "Generating 48 tokens from 24 prompts of 20 to 400 tokens"
    ratio, _ = compare(title, "generate_until", requests, {}, lambda first, second: first == second)
    assert ratio > 1.4  # products and attention, which both compute, bound it by 2.2
