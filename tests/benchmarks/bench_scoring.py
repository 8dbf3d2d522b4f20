"""Requests a second on four-choice documents: our LM against lm-eval's `hf` model, in one run."""

from __future__ import annotations

import random
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

DOCUMENTS, CONTEXT, CHOICE = 20, 271, 28


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
    )
    return LlamaForCausalLM(config).eval()


def test_scoring_four_choice_documents() -> None:
    rng = random.Random(0)

    def text(length: int) -> str:
        return "".join(rng.choices("abcdefghij ", k=length - 1))

    pairs = []
    for _ in range(DOCUMENTS):
        context = text(CONTEXT) + "."
        pairs += [(context, " " + text(CHOICE)) for _ in range(4)]
    requests = [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(pairs)]
    model = language_model(len(tokenizer()))
    subject = Subject(model=model, tokenizer=tokenizer(), max_length=512)
    lms = {
        "lm-eval's hf": HFLM(pretrained=model, tokenizer=tokenizer(), batch_size=8, max_length=512),
        "harness": SubjectLM(subject),
    }
    totals: dict[str, float] = {}

    def score(name: str) -> None:
        found = lms[name].loglikelihood(requests, disable_tqdm=True)
        totals[name] = sum(total for total, _ in found)

    found = in_turn({name: lambda name=name: score(name) for name in lms}, rounds=3)
    rows = [
        (name, f"{len(requests) / min(seconds):.1f}", f"{totals[name]:.2f}")
        for name, seconds in found.items()
    ]
    title = f"Scoring {DOCUMENTS} documents of four choices ({CONTEXT} + {CHOICE} tokens)"
    show(title, ("model", "requests/s", "sum of log-probabilities"), rows)
    ratio = median_ratio(found, "lm-eval's hf", "harness")
    print(f"\nharness / hf: {ratio:.2f}")
    assert ratio > 1.5
