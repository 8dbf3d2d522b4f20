"""Divergence: how far a model's next-token distributions are from a reference model's."""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness import (
    Choice,
    ConfigError,
    Evaluation,
    Evaluator,
    IncompatibleError,
    Method,
    Metric,
    Problem,
    Subject,
    check_counts,
    check_vocabulary,
    encode_plain,
    held_out_documents,
    hookimpl,
    model_ref,
)


class Divergence(Evaluator):
    """KL divergence from a reference model on the corpus's held-out documents, token by token.

    Source: llama.cpp's `perplexity --kl-divergence`, by which quantizations are judged
    State: the reference's log-probabilities are kept once in the store's cache, whoever is compared
    Units: nats per token, KL(reference || model); agreement is the share of equal likeliest tokens
    Error: standard errors over documents; sums in float64
    """

    name = "divergence"
    draws = False

    @dataclass(frozen=True, kw_only=True)
    class Config(Evaluator.Config):
        reference: str = model_ref()
        """The model compared with: `cell:quantizer=none`, a path, or a hub name."""
        max_documents: int = 16
        """Documents read, spread evenly over the test split."""
        max_tokens: int = 64
        """Tokens of each document that are predicted, from its start."""

        def __post_init__(self) -> None:
            check_counts(self, "evaluator.divergence", "max_documents", "max_tokens")

    config: Config

    @classmethod
    def trial(cls) -> Any:
        return cls.Config(max_documents=4, max_tokens=16)

    @classmethod
    def check(cls, config: Any, cell: Any, meta_model: nn.Module | None) -> Iterable[Problem]:
        if not config.reference:
            yield Problem(where="evaluator.divergence.reference", message=NO_REFERENCE)

    @classmethod
    def item_texts(cls, config: Any) -> Sequence[Choice]:
        return (held_out_documents(),)

    @torch.inference_mode()
    def evaluate(self, task: str, subject: Subject) -> Evaluation:
        import pandas as pd

        if "reference" not in subject.models:
            raise ConfigError(f"evaluator.divergence.reference: {NO_REFERENCE}")
        names, rows = self.documents(subject)
        rows_of_reference = self.reference(subject, rows)
        found = []
        for name, reference_TV, own_TV in zip(
            names, rows_of_reference, log_probs(subject, rows), strict=True
        ):
            reference_TV = reference_TV.double()
            kl_T = (reference_TV.exp() * (reference_TV - own_TV.double())).sum(-1).clamp(min=0)
            same_T = reference_TV.argmax(-1) == own_TV.argmax(-1)
            found.append((name, kl_T.cpu().numpy(), same_T.double().cpu().numpy()))
        samples = pd.DataFrame(
            {
                "task": task,
                "doc_hash": [hashlib.sha256(name.encode()).hexdigest() for name, _, _ in found],
                "prompt": [name for name, _, _ in found],
                "kl": [float(kl.mean()) for _, kl, _ in found],
                "agreement": [float(same.mean()) for _, _, same in found],
                "tokens": [len(kl) for _, kl, _ in found],
            }
        )
        kls, sames = (np.concatenate([row[column] for row in found]) for column in (1, 2))
        weights = samples["tokens"].to_numpy()
        metrics = [
            Metric(
                task=task,
                metric="kl",
                value=float(kls.mean()),
                unit="nats/token",
                higher_is_better=False,
                stderr=_error(samples["kl"].to_numpy(), weights),
                n=len(samples),
            ),
            Metric(
                task=task,
                metric="kl_p99",
                value=float(np.quantile(kls, 0.99)),
                unit="nats/token",
                higher_is_better=False,
                n=len(kls),
            ),
            Metric(
                task=task,
                metric="agreement",
                value=float(sames.mean()),
                stderr=_error(samples["agreement"].to_numpy(), weights),
                n=len(samples),
            ),
        ]
        facts = {"tokens": len(kls), "reference": subject.names.get("reference", "")}
        return Evaluation(metrics=metrics, samples=samples, facts=facts)

    def documents(self, subject: Subject) -> tuple[list[str], list[list[int]]]:
        """Names of documents, and what is read of each: a first token and those predicted."""
        if subject.documents is None:
            raise IncompatibleError("evaluator.divergence needs documents; add the stage corpus to `stages`")
        known = [document for document in subject.documents("test") if document.text.strip()]
        if not known:
            raise IncompatibleError("evaluator.divergence: no test documents; raise corpus.test_share")
        wanted, tokenizer = min(self.config.max_documents, len(known)), subject.tokenizer
        chosen = [known[index * len(known) // wanted] for index in range(wanted)]
        first = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        size = min(self.config.max_tokens, subject.max_length)
        rows = [
            [first, *encode_plain(tokenizer, document.text[: 16 * size])["input_ids"][:size]]
            for document in chosen
        ]
        return [document.id for document in chosen], rows

    def reference(self, subject: Subject, rows: list[list[int]]) -> Iterator[Tensor]:
        """The reference's log-probabilities, computed once for these tokens."""
        from safetensors import safe_open
        from safetensors.torch import save_file

        stated = json.dumps([subject.names.get("reference", ""), rows])
        name = hashlib.sha256(stated.encode()).hexdigest()
        folder = None if subject.cache is None or not subject.names else subject.cache / "reference_log_probs"
        file = None if folder is None else folder / f"{name}.safetensors"
        if file is None or not file.exists():
            given = subject.models["reference"]()
            check_vocabulary(subject.model, given.model, where="evaluator.divergence.reference")
            if given.tokenizer.get_vocab() != subject.tokenizer.get_vocab():
                raise IncompatibleError(
                    "evaluator.divergence.reference: its tokenizer is another one; name a model with the same"
                )
            computed = log_probs(given, rows)
            if file is None or folder is None:
                yield from computed
                return
            folder.mkdir(parents=True, exist_ok=True)
            draft = Path(f"{file}.{os.getpid()}")
            save_file({str(index): row_TV.cpu() for index, row_TV in enumerate(computed)}, draft)
            draft.rename(file)
        with safe_open(file, framework="pt", device=subject.device) as kept:
            for index in range(len(rows)):
                yield kept.get_tensor(str(index))


def log_probs(subject: Subject, rows: list[list[int]]) -> Iterator[Tensor]:
    """Log-probabilities of all tokens at every position of each row but its last.

    Shapes: -> TV float32 for each row of T + 1 tokens
    """
    for done, row in enumerate(rows):
        subject.on_progress(done, len(rows))
        ids = torch.tensor([row[:-1]], device=subject.device)
        yield subject.model(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)


def _error(means: np.ndarray, weights: np.ndarray) -> float | None:
    """Standard error of a weighted mean over documents (ratio estimator)."""
    count = len(means)
    if count < 2:
        return None
    residuals = weights * (means - np.average(means, weights=weights))
    return float(math.sqrt(count * residuals.var(ddof=1)) / weights.sum())


NO_REFERENCE = (
    "divergence needs a model to compare with; name one with the same tokenizer, e.g. "
    "evaluator.divergence.reference='cell:quantizer=none'"
)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Divergence]
