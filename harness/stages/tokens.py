"""Stage tokens: documents as memory-mapped token files, with the mixture's weights."""

from __future__ import annotations

from itertools import islice, tee
from typing import Any

from harness.axes.corpus import Split
from harness.axes.mixture import Mixture
from harness.data import documents, tokenization
from harness.data.token_files import TokenWriter
from harness.errors import ConfigError, DataError
from harness.hookspecs import hookimpl
from harness.stage import Stage, Work
from harness.stages._progress import Documents

SAVE_BYTES = 32_000_000
"""Bytes of text after which what is encoded is saved against a kill."""


class TokensStage(Stage):
    """Encodes every document once, on all cores and in their order, and fixes each domain's share.

    State: what is encoded, saved every `SAVE_BYTES`; after a kill the rest follows
    Raises: ConfigError if the mixture's shares do not sum to 1 over the corpus's domains
    """

    name = "tokens"
    after = ("tokenizer",)
    axes = ("mixture",)
    needs = ("documents", "tokenizer")
    produces = "tokens"
    seeded = False

    def run(self, work: Work) -> dict[str, Any]:
        directory = work.inputs["tokenizer"].path
        rust, special = tokenization.load_rust(directory), tokenization.special_ids(directory)
        if special["eos"] is None:
            raise DataError(f"the tokenizer in {directory} names no eos token; token files need one")
        place = work.checkpoints / "encoded"
        place.mkdir(parents=True, exist_ok=True)
        writer = TokenWriter(
            place, vocab_size=rust.get_vocab_size(), bos_id=special["bos"], eos_id=special["eos"]
        )
        source = work.inputs["documents"].path
        rest = islice(documents.iterate(source), writer.resume(), None)
        left, right = tee(rest)
        unsaved, total = 0, max(1, documents.total_bytes(source))
        before = sum(entry["num_bytes"] for domains in writer.splits.values() for entry in domains.values())
        progress = Documents(work, lambda documents: (before + progress.bytes) / total)
        progress.begin()
        with tokenization.all_cores():
            for document, ids in zip(left, tokenization.encode(rust, (d.text for d in right)), strict=True):
                num_bytes = len(document.text.encode())
                writer.add(document.split.value, document.domain, ids, num_bytes=num_bytes)
                unsaved += num_bytes
                progress.add(document)
                if unsaved >= SAVE_BYTES:
                    writer.save()
                    unsaved = 0
        writer.move(work.out)
        train = writer.splits[Split.train.value]
        mixture: Mixture = work.one("mixture").build()
        mixture.tokens = writer.finish(Split.train)
        weights = mixture.weights({domain: entry["num_tokens"] for domain, entry in sorted(train.items())})
        if set(weights) != set(train) or abs(sum(weights.values()) - 1) > 1e-6:
            raise ConfigError(
                f"mixture={mixture.name} gives {weights}; it must give each of {sorted(train)} a share, sum 1"
            )
        writer.write_index(weights)
        return {
            "weights": weights,
            "num_tokens": {
                split: {domain: entry["num_tokens"] for domain, entry in domains.items()}
                for split, domains in writer.splits.items()
            },
        }


@hookimpl
def harness_stages() -> list[type[Stage]]:
    return [TokensStage]
