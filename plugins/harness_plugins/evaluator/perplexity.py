"""Perplexity: how many bits the model needs for a byte of unseen documents."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from harness import (
    Choice,
    ConfigError,
    Document,
    Evaluation,
    Evaluator,
    IncompatibleError,
    LikelihoodScorer,
    Method,
    Subject,
    check_counts,
    check_limits,
    encode_plain,
    held_out_documents,
    hidden_bytes,
    hookimpl,
    ratio_metric,
    rolling,
)


class Perplexity(Evaluator):
    """Bits per byte on the corpus's held-out documents, fair across tokenizers.

    Units: bits per UTF-8 byte, 8 for each that no token says (escape coding); the same in nats per
        Unicode character; loss in nats per token, which is not comparable across tokenizers
    Error: standard errors over documents (ratio estimator)
    """

    name = "perplexity"
    draws = False
    on_validation = frozenset({"bits_per_byte", "loss", "nats_per_character"})

    @dataclass(frozen=True, kw_only=True)
    class Config(Evaluator.Config):
        split: str = "test"
        """Documents to score: `test`, or `validation` for tuning."""
        domains: list[str] = field(default_factory=list)
        """Domains that are also measured one by one, each a task of its name."""
        max_documents: int | None = 64
        """Documents scored, spread evenly over the split; null = all."""
        max_bytes: int | None = 512
        """Bytes of each document that are scored, from its start; null = all."""
        min_bytes: int = 0
        """Documents shorter than this are left out."""
        window: int | None = None
        """Tokens that are read at once; null = as many as the model reads."""
        stride: int | None = None
        """Tokens that each window after the first predicts; null = all that it reads. Fewer give every token
        more context and cost more."""
        batch_tokens: int = 1024
        """Padded tokens of one forward pass."""

        def __post_init__(self) -> None:
            if self.split not in ("validation", "test"):
                raise ConfigError(f"evaluator.perplexity.split={self.split} must be validation or test")
            check_limits(self, "evaluator.perplexity", "max_documents", "max_bytes", "window", "stride")
            check_counts(self, "evaluator.perplexity", "batch_tokens")
            if self.stride is not None and self.window is not None and self.stride > self.window:
                raise ConfigError(
                    f"evaluator.perplexity.stride={self.stride} must be at most window={self.window}"
                )

    config: Config

    @classmethod
    def tasks(cls, config: Any) -> Sequence[str]:
        return (cls.name, *dict.fromkeys(config.domains))

    @classmethod
    def only(cls, config: Any, task: str) -> Any:
        return replace(config, domains=[name for name in config.domains if name == task][:1])

    @classmethod
    def metrics(cls, config: Any, task: str) -> Sequence[str]:
        return ("bits_per_byte", "loss", "nats_per_character")

    @classmethod
    def trial(cls) -> Any:
        return cls.Config(max_documents=8, max_bytes=128)

    @classmethod
    def longest(cls, config: Any) -> int | None:
        return config.window  # type: ignore[no-any-return]

    @classmethod
    def item_texts(cls, config: Any) -> Sequence[Choice]:
        return (held_out_documents(),)

    def evaluate(self, task: str, subject: Subject) -> Evaluation:
        import pandas as pd

        documents = self.documents(subject, "" if task == self.name else task)
        texts = [self.head(document.text) for document in documents]
        window = self.config.window or subject.max_length
        stride = None if self.config.stride is None else min(self.config.stride, window)
        scorer = LikelihoodScorer(
            model=subject.model,
            max_length=window,
            batch_tokens=max(self.config.batch_tokens, window),
            on_progress=subject.on_progress,
        )
        tokenizer = subject.tokenizer
        bos = tokenizer.bos_token_id
        prefix = tokenizer.eos_token_id if bos is None else bos
        read = [encode_plain(tokenizer, text) for text in texts]
        tokens = [row["input_ids"] for row in read]
        hidden = np.array([hidden_bytes(tokenizer, text, row) for text, row in zip(texts, read, strict=True)])
        windows = [list(rolling(ids, prefix=prefix, max_length=window, stride=stride)) for ids in tokens]
        scores = iter(scorer.score([window for row in windows for window in row]))
        losses = np.array([-sum(next(scores).total for _ in row) for row in windows])
        sizes = np.array([len(text.encode()) for text in texts])
        counts = np.array([len(ids) for ids in tokens])
        characters = np.array([len(text) for text in texts])
        bits = losses / math.log(2) + 8 * hidden
        samples = pd.DataFrame(
            {
                "task": task,
                "doc_hash": [hashlib.sha256(document.id.encode()).hexdigest() for document in documents],
                "prompt": [document.id for document in documents],
                "bits_per_byte": bits / sizes,
                "loss": losses / counts,
                "nats_per_character": bits * math.log(2) / characters,
                "bytes": sizes,
                "tokens": counts,
                "hidden_bytes": hidden,
            }
        )
        metrics = [
            ratio_metric(task, "bits_per_byte", bits, sizes, unit="bits/byte"),
            ratio_metric(task, "loss", losses, counts, unit="nats/token"),
            ratio_metric(task, "nats_per_character", bits * math.log(2), characters, unit="nats/character"),
        ]
        facts: dict[str, Any] = {
            "bytes": int(sizes.sum()),
            "tokens": int(counts.sum()),
            "hidden_bytes": int(hidden.sum()),
            "documents_sha256": hashlib.sha256("\0".join(texts).encode()).hexdigest(),
        }
        return Evaluation(metrics=metrics, samples=samples, facts=facts)

    def documents(self, subject: Subject, domain: str = "") -> list[Document]:
        """Non-empty documents of the split, of one domain or of all, spread evenly over it."""
        if subject.documents is None:
            raise IncompatibleError("evaluator.perplexity needs documents; add the stage corpus to `stages`")
        least = max(1, self.config.min_bytes)
        known = subject.documents(self.config.split)
        found = [
            document
            for document in known
            if domain in ("", document.domain)
            and document.text.strip()
            and len(document.text.encode()) >= least
        ]
        if domain and not found:
            raise IncompatibleError(
                f"evaluator.perplexity.domains: no {self.config.split} document of {least} bytes is of the "
                f"domain '{domain}'; the corpus has {sorted({document.domain for document in known})}"
            )
        if not found:
            raise IncompatibleError(
                f"evaluator.perplexity: the corpus has no {self.config.split} documents of {least} bytes; "
                f"raise corpus.{self.config.split}_share or lower min_bytes"
            )
        wanted = min(len(found), self.config.max_documents or len(found))
        return [found[index * len(found) // wanted] for index in range(wanted)]

    def head(self, text: str) -> str:
        """The first `max_bytes` bytes, cut between characters."""
        limit = self.config.max_bytes
        return text if limit is None else text.encode()[:limit].decode(errors="ignore")


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Perplexity]
