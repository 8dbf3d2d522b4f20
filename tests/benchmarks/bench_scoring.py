"""Requests a second on four-choice documents: our LM against lm-eval's `hf` model, in one run."""

from __future__ import annotations

import random
import time
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from harness.axes.evaluator import Subject
from harness.conformance._language import tokenizer
from harness.evaluation.lm import SubjectLM

DOCUMENTS, CONTEXT, CHOICE = 60, 271, 28


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
    torch.set_num_threads(1)
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
    rates = {}
    for name, lm in (
        ("hf", HFLM(pretrained=model, tokenizer=tokenizer(), batch_size=8, max_length=512)),
        ("ours", SubjectLM(subject)),
    ):
        lm.loglikelihood(requests[:8], disable_tqdm=True)
        start = time.perf_counter()
        found = lm.loglikelihood(requests, disable_tqdm=True)
        rates[name] = len(requests) / (time.perf_counter() - start)
        total = sum(score for score, _ in found)
        print(f"{name:5} {rates[name]:7.1f} requests/s, sum of log-probabilities {total:.2f}")
    print(f"ratio {rates['ours'] / rates['hf']:.2f} (ours / hf)")

    assert rates["ours"] > rates["hf"]
