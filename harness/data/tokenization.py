"""Tokenizers on disk: saved without transformers, loaded as its PreTrainedTokenizerFast."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.axes.tokenizer import SPECIAL_TOKENS
from harness.data.template import CHAT_TEMPLATE

if TYPE_CHECKING:
    from tokenizers import Tokenizer as RustTokenizer
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

PAD, BOS, EOS, UNK, USER, ASSISTANT, MASK = SPECIAL_TOKENS
TEXTS_PER_BATCH = 512
CHARACTERS_PER_BATCH = 250_000


def save_tokenizer(tokenizer: RustTokenizer, directory: Path) -> None:
    """Write `tokenizer.json` and the files transformers wants beside it."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": PAD,
        "bos_token": BOS,
        "eos_token": EOS,
        "unk_token": UNK,
        "mask_token": MASK,
        "additional_special_tokens": [USER, ASSISTANT],
        "clean_up_tokenization_spaces": False,
        "model_max_length": 10**9,
        "chat_template": CHAT_TEMPLATE,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
    (directory / "chat_template.jinja").write_text(CHAT_TEMPLATE)


def load_tokenizer(directory: Path | str) -> PreTrainedTokenizerFast:
    """The tokenizer of an artifact or of any Hugging Face directory; pads with eos where it has no pad."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(directory))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer  # type: ignore[no-any-return]


def load_rust(directory: Path | str) -> RustTokenizer:
    """The bare tokenizer of an artifact: fast to import, adds no special tokens and reads none in text."""
    from tokenizers import Tokenizer as RustTokenizer

    tokenizer = RustTokenizer.from_file(str(Path(directory) / "tokenizer.json"))
    tokenizer.encode_special_tokens = True  # in a document, `<|eos|>` is text
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def special_ids(directory: Path | str) -> dict[str, int | None]:
    """Ids of pad, bos, eos and unk, as `tokenizer_config.json` names them; None where it names none."""
    config = json.loads((Path(directory) / "tokenizer_config.json").read_text())
    rust = load_rust(directory)

    def id_of(role: str) -> int | None:
        token = config.get(f"{role}_token")
        token = token["content"] if isinstance(token, dict) else token
        return None if token is None else rust.token_to_id(token)

    return {role: id_of(role) for role in ("pad", "bos", "eos", "unk")}


def encode(tokenizer: RustTokenizer, texts: Iterable[str]) -> Iterator[Sequence[int]]:
    """Token ids of each text, no special tokens added, in batches; see `all_cores`."""
    for batch in _batches(texts):
        for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False):
            yield encoding.ids


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Texts in their order, so many and so long at once that they fill the cores and not the memory."""
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if len(batch) == TEXTS_PER_BATCH or characters >= CHARACTERS_PER_BATCH:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


@contextlib.contextmanager
def all_cores() -> Iterator[None]:
    """Texts are encoded in this block by all cores that the process may use, whatever its own threads are.

    The ids are the same on any number of cores, so that none of them is in a key.
    State: the library makes its threads once a process, at the first batch
    """
    cores = {"TOKENIZERS_PARALLELISM": "true", "RAYON_NUM_THREADS": str(len(os.sched_getaffinity(0)))}
    before = {name: os.environ.get(name) for name in cores}
    os.environ.update(cores)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def measure(tokenizer: RustTokenizer, texts: Sequence[str], *, unk_id: int | None) -> dict[str, Any]:
    """What a tokenizer does to held-out text.

    Units: `bytes_per_token` UTF-8 bytes; `fertility` tokens a whitespace-separated word;
    `vocabulary_use` share of entries met; `unknown_rate` share of tokens; `lossless_rate` share of texts
    """
    used: set[int] = set()
    num_tokens = num_unknown = num_lossless = 0
    for text, ids in zip(texts, encode(tokenizer, texts), strict=True):
        used.update(ids)
        num_tokens += len(ids)
        num_unknown += sum(i == unk_id for i in ids)
        num_lossless += tokenizer.decode(ids, skip_special_tokens=False) == text
    num_words = sum(len(text.split()) for text in texts)
    return {
        "vocab_size": tokenizer.get_vocab_size(),
        "bytes_per_token": sum(len(text.encode()) for text in texts) / max(num_tokens, 1),
        "fertility": num_tokens / max(num_words, 1),
        "vocabulary_use": len(used) / tokenizer.get_vocab_size(),
        "unknown_rate": num_unknown / max(num_tokens, 1),
        "lossless_rate": num_lossless / max(len(texts), 1),
        "measured_on": {"texts": len(texts), "tokens": num_tokens},
    }


def encode_plain(tokenizer: PreTrainedTokenizerBase, text: str) -> Mapping[str, Any]:
    """Token ids (`input_ids`) of a document and their places in it (`offset_mapping`), in characters.

    None are added, and the name of a special token is text like any other.
    """
    options = {"return_offsets_mapping": True, "split_special_tokens": True}
    found: Mapping[str, Any] = tokenizer(text, add_special_tokens=False, **options)
    return found


def hidden_bytes(tokenizer: PreTrainedTokenizerBase, text: str, read: Mapping[str, Any]) -> int:
    """UTF-8 bytes of a text that its tokens do not say: under the unknown token, and under none.

    `read` is of `encode_plain`. They cost 8 bits each (escape coding), or a vocabulary without a script, or
    one that drops line ends and indentation, would have them for nothing. One space between two tokens is
    said by their being two.
    Error: what a normalizer rewrites (capitals, accents) counts as said
    """
    unknown, ids, places = tokenizer.unk_token_id, read["input_ids"], read["offset_mapping"]
    spans = {place for token, place in zip(ids, places, strict=True) if token == unknown}
    parts = [text[start:end] for start, end in spans]
    if tokenizer.decode(ids, clean_up_tokenization_spaces=False) != text:
        parts += _uncovered(text, places)
    return sum(len(part.encode()) for part in parts)


def _uncovered(text: str, places: Sequence[tuple[int, int]]) -> Iterator[str]:
    """The parts of a text before, between and behind its tokens, but for one space between two."""
    end = 0
    for start, stop in places:
        if start > end:
            yield text[end:start].replace(" ", "", 1 if end else 0)
        end = max(end, stop)
    yield text[end:]


def prefix_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """What stands before a text that has nothing before it, scored or calibrated on."""
    bos = tokenizer.bos_token_id
    return int(tokenizer.eos_token_id if bos is None else bos)  # type: ignore[arg-type]
