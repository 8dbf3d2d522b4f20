"""Stage tokenizer: a vocabulary learned from the training documents."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from typing import Any

from harness.axes.corpus import Split
from harness.axes.tokenizer import SPECIAL_TOKENS, Tokenizer
from harness.data import documents, tokenization
from harness.errors import PluginError
from harness.hookspecs import hookimpl
from harness.stage import Stage, Work

MEASURED_BYTES = 200_000
COPIED = (
    *("tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "*.jinja"),
    *("vocab.json", "vocab.txt", "vocab.bpe", "merges.txt"),
)
"""Files of a pretrained tokenizer."""


class TokenizerStage(Stage):
    """Learns the tokenizer, or copies a pretrained one, and measures it on validation documents."""

    name = "tokenizer"
    after = ("corpus",)
    axes = ("tokenizer",)
    needs = ("documents",)
    produces = "tokenizer"
    seeded = False

    def run(self, work: Work) -> dict[str, Any]:
        method: Tokenizer = work.one("tokenizer").build()
        directory = work.inputs["documents"].path
        source = method.directory()
        if source is None:
            most = method.config.train_bytes
            found_texts = documents.domains_in_turn(directory, Split.train, max_bytes=most)
            rust = method.train(up_to((document.text for document in found_texts), most))
            found = [rust.id_to_token(i) for i in range(len(SPECIAL_TOKENS))]
            if found != list(SPECIAL_TOKENS):
                raise PluginError(f"tokenizer={method.name} must put {SPECIAL_TOKENS} first, found {found}")
            tokenization.save_tokenizer(rust, work.out)
        else:
            for path in (path for pattern in COPIED for path in sorted(source.glob(pattern))):
                shutil.copy(path, work.out / path.name)
        held_out = documents.domains_in_turn(directory, Split.validation, max_bytes=MEASURED_BYTES)
        sample = list(up_to((document.text for document in held_out), MEASURED_BYTES))
        unk_id = tokenization.special_ids(work.out)["unk"]
        return {
            "lossless": method.lossless,
            **tokenization.measure(tokenization.load_rust(work.out), sample, unk_id=unk_id),
        }


def up_to(texts: Iterator[str], max_bytes: int | None) -> Iterator[str]:
    """Texts until their UTF-8 bytes reach `max_bytes`, the last one cut; all of them for None."""
    left = math.inf if max_bytes is None else max_bytes
    for text in texts:
        size = len(text.encode())
        if size >= left:
            yield text.encode()[: int(left)].decode(errors="ignore")
            return
        yield text
        left -= size


@hookimpl
def harness_stages() -> list[type[Stage]]:
    return [TokenizerStage]
