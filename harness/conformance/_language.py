"""A tiny language model with its tokenizer and documents, for the suites of the measuring axes.

Shapes: V = 259 (bytes and three special tokens); the window is 512 tokens
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from harness.axes.corpus import Document, Split
from harness.axes.evaluator import Subject
from harness.data.template import CHAT_TEMPLATE

WINDOW = 512
SPECIAL = ("<|pad|>", "<|eos|>", "<|unk|>")
PAD, END = 256, 257


@cache
def tokenizer() -> Any:
    """One token a byte, and pad, eos and unk."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: index for index, symbol in enumerate([*alphabet, *SPECIAL])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    names = dict(zip(("pad_token", "eos_token", "unk_token"), SPECIAL, strict=True))
    made = PreTrainedTokenizerFast(tokenizer_object=inner, **names)
    made.chat_template = CHAT_TEMPLATE
    return made


def model(*, seed: int = 0, layers: int = 2) -> Any:
    """A causal model of transformers with large random weights, so that its likelihoods differ."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer()),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=WINDOW,
        pad_token_id=PAD,
        eos_token_id=END,
        bos_token_id=None,
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        made = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, parameter in sorted(made.named_parameters()):
            if "norm" not in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.25)
    return made


def documents(split: str) -> list[Document]:
    """Forty documents of plain sentences, all of one split."""
    sentence = "the parser reads every option from a file and returns the value of each name in order"
    words = sentence.split()
    texts = [" ".join(words[(i * 7 + k * k) % len(words)] for k in range(120)) + "." for i in range(40)]
    return [
        Document(id=f"document-{index}", text=text, domain="docs", split=Split(split))
        for index, text in enumerate(texts)
    ]


def subject(**options: Any) -> Subject:
    """A subject for evaluators; options replace its fields."""
    from harness.registry.known import registry

    known = registry()
    given = {
        "model": model(),
        "tokenizer": tokenizer(),
        "max_length": WINDOW,
        "documents": documents,
        "decoding": known.get("decoding", "greedy")(),
        "judge": known.get("judge", "rules")(),
        "stored_bytes": 1000,
    }
    return Subject(**{**given, **options})
