"""A tokenizer as somebody else trained it."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from harness import (
    SPECIAL_TOKENS,
    CellView,
    ConfigError,
    DataError,
    Method,
    Problem,
    Tokenizer,
    hookimpl,
    path_ref,
)

REQUIRED = ("tokenizer.json", "tokenizer_config.json")


class Pretrained(Tokenizer):
    """A Hugging Face directory with tokenizer.json, taken as it is; what it loses it loses.

    Error: whether it is lossless is measured, not claimed
    Raises: ConfigError without a path, DataError where the directory holds no tokenizer
    """

    name = "pretrained"
    lossless = False

    @dataclass(frozen=True, kw_only=True)
    class Config(Tokenizer.Config):
        path: str = path_ref(suffixes=(".json", ".jinja", ".txt", ".bpe"), folder=True, required=True)
        """Directory with tokenizer.json and tokenizer_config.json; required."""
        vocab_size: int = 0
        """Entries of the embedding table, at least those of the tokenizer; must be given."""

        def __post_init__(self) -> None:
            if not self.path:
                return  # what must be given is asked for by the plan
            if self.vocab_size < 1:
                file = Path(self.path).expanduser() / "tokenizer.json"
                raise ConfigError(
                    f"tokenizer.vocab_size={self.vocab_size}: state how many entries the embedding table "
                    f"has, at least {entries(file)}, those of {file}"
                )
            super().__post_init__()

    config: Config

    @classmethod
    def trial(cls, directory: Path) -> Config:
        from tokenizers import Tokenizer as RustTokenizer
        from tokenizers import decoders, models, pre_tokenizers

        entries = ["<|eos|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
        rust = RustTokenizer(models.BPE(vocab={e: i for i, e in enumerate(entries)}, merges=[]))
        rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        rust.decoder = decoders.ByteLevel()
        rust.save(str(directory / "tokenizer.json"))
        (directory / "tokenizer_config.json").write_text('{"eos_token": "<|eos|>"}')
        return cls.Config(path=str(directory), vocab_size=len(entries))

    @classmethod
    def check(cls, config: Any, cell: CellView, meta_model: nn.Module | None) -> Iterable[Problem]:
        folder = Path(config.path).expanduser()
        lacking = [name for name in REQUIRED if not (folder / name).is_file()]
        if config.path and folder.is_dir() and lacking:
            yield Problem(
                where="tokenizer.path",
                message=f"{folder} holds no {lacking[0]}; {_way(folder, lacking)}",
            )

    @classmethod
    def min_vocab_size(cls) -> int:
        return len(SPECIAL_TOKENS)

    def directory(self) -> Path:
        if not self.config.path:
            raise ConfigError("tokenizer=pretrained needs tokenizer.path=DIR, a folder with tokenizer.json")
        path = Path(self.config.path).expanduser()
        for file in REQUIRED:
            if not (path / file).is_file():
                raise DataError(f"tokenizer.path={path} holds no {file}; give a Hugging Face directory")
        return path

    def train(self, texts: Iterator[str]) -> Any:
        raise NotImplementedError("a pretrained tokenizer is not trained")


def _way(folder: Path, lacking: list[str]) -> str:
    """How a folder comes to hold what a tokenizer needs."""
    if lacking == ["tokenizer_config.json"]:
        return (
            f"`transformers.PreTrainedTokenizerFast(tokenizer_file='{folder / 'tokenizer.json'}', "
            "eos_token='...').save_pretrained(DIR)` writes both into DIR"
        )
    return "give a Hugging Face directory"


def entries(file: Path) -> int:
    """Entries of a tokenizer.json, those added included.

    Raises: ConfigError where it is not there, or is none
    """
    if not file.is_file():
        raise ConfigError(f"tokenizer.path={file.parent} holds no {file.name}; give a Hugging Face directory")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        own = content["model"]["vocab"]
        last = max((int(token["id"]) for token in content.get("added_tokens", ())), default=-1)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file} is no tokenizer: {type(error).__name__}: {error}") from error
    return max(len(own), last + 1)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Pretrained]
