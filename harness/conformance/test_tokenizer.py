"""What every tokenizer must do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from harness.axes.tokenizer import SPECIAL_TOKENS, Tokenizer
from harness.data.tokenization import load_rust, load_tokenizer, save_tokenizer

AXIS = "tokenizer"
TEXT = (
    "Return the value of the named attribute of object. Name must be a string.\n"
    "def read(self, size=-1):\n    return self.buffer.read(size)\n"
    "Cafe, naive; 12 + 30 = 42. The quick brown fox jumps over the lazy dog!\n"
)
_TRAINED: dict[type[Tokenizer], Any] = {}


def trained(method: type[Tokenizer], directory: Path) -> Any:
    """The `tokenizers.Tokenizer` of a method, learned once from a little text."""
    if method not in _TRAINED:
        instance = method(method.trial(directory))
        source = instance.directory()
        _TRAINED[method] = instance.train(iter([TEXT] * 50)) if source is None else load_rust(source)
    return _TRAINED[method]


def trains(method: type[Tokenizer], directory: Path) -> bool:
    """Whether the method learns its vocabulary here."""
    return method(method.trial(directory)).directory() is None


def test_special_tokens_come_first(method: type[Tokenizer], tmp_path: Path) -> None:
    if trains(method, tmp_path):
        tokenizer = trained(method, tmp_path)
        assert [tokenizer.id_to_token(i) for i in range(len(SPECIAL_TOKENS))] == list(SPECIAL_TOKENS), (
            "special tokens must have the first ids, in their order"
        )


def test_the_vocabulary_is_no_larger_than_asked(method: type[Tokenizer], tmp_path: Path) -> None:
    if trains(method, tmp_path):
        config = method.trial(tmp_path)
        assert trained(method, tmp_path).get_vocab_size() <= max(
            config.vocab_size, method.min_vocab_size()
        ), "the vocabulary is larger than vocab_size"


def test_ids_lie_within_the_vocabulary(method: type[Tokenizer], tmp_path: Path) -> None:
    tokenizer = trained(method, tmp_path)
    ids = tokenizer.encode(TEXT, add_special_tokens=False).ids
    assert ids, "text gives no token"
    assert max(ids) < tokenizer.get_vocab_size(), "an id lies beyond the vocabulary"


def test_the_size_of_a_token_is_as_stated(method: type[Tokenizer], tmp_path: Path) -> None:
    stated = method.bytes_per_token(method.trial(tmp_path))
    if stated is not None:
        ids = trained(method, tmp_path).encode(TEXT, add_special_tokens=False).ids
        measured = len(TEXT.encode()) / len(ids)
        assert abs(measured - stated) < 0.01 * stated, (
            f"`bytes_per_token` says {stated}, and a token of this text has {measured:.3f}"
        )


def test_training_twice_gives_the_same_tokens(method: type[Tokenizer], tmp_path: Path) -> None:
    if trains(method, tmp_path):
        first = trained(method, tmp_path).get_vocab()
        again = method(method.trial(tmp_path)).train(iter([TEXT] * 50)).get_vocab()
        if method.reproducible:
            assert again == first, "two trainings give other vocabularies; else state reproducible = False"
        else:
            assert len(set(again) ^ set(first)) <= 0.1 * len(first), (
                "two trainings differ by more than 10 % of the vocabulary"
            )


def test_text_it_learned_from_survives(method: type[Tokenizer], tmp_path: Path) -> None:
    tokenizer = trained(method, tmp_path)
    decoded = tokenizer.decode(tokenizer.encode(TEXT, add_special_tokens=False).ids)
    if method.lossless:
        assert decoded == TEXT, "text does not survive encoding and decoding; else state lossless = False"
    else:
        letters = "".join(decoded.split()).lower()
        assert letters == "".join(TEXT.split()).lower(), "a lossy tokenizer keeps the characters it knows"


def test_any_unicode_survives_where_lossless(method: type[Tokenizer], tmp_path: Path) -> None:
    if not method.lossless:
        return
    tokenizer = trained(method, tmp_path)

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.text(max_size=60))
    @example(" leading and  double  spaces \n\n\t")
    @example("\u00e9 e\u0301 \ufb01 \u2126 \u1100\u1161 \U0001f468\u200d\U0001f469 \u202e \ufeff \x00 \x85")
    @example("\u2581 and \u0120")
    def survives(text: str) -> None:
        for token in (*SPECIAL_TOKENS, *method.lossy_characters):
            text = text.replace(token, "")
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text, (
            "text does not survive encoding and decoding: name the characters in lossy_characters"
        )

    survives()


def test_special_tokens_are_never_split_nor_merged(method: type[Tokenizer], tmp_path: Path) -> None:
    if trains(method, tmp_path):
        tokenizer = trained(method, tmp_path)
        user = SPECIAL_TOKENS.index("<|user|>")
        ids = tokenizer.encode("a<|user|>b", add_special_tokens=False).ids
        assert ids.count(user) == 1, "a special token was split, or merged with its neighbours"


def test_saved_and_loaded_it_is_the_same(method: type[Tokenizer], tmp_path: Path) -> None:
    if not trains(method, tmp_path):
        return
    tokenizer = trained(method, tmp_path)
    save_tokenizer(tokenizer, tmp_path / "saved")
    loaded = load_tokenizer(tmp_path / "saved")
    assert loaded(TEXT, add_special_tokens=False)["input_ids"] == (
        tokenizer.encode(TEXT, add_special_tokens=False).ids
    ), "saved and loaded, the tokenizer gives other ids"
    assert (loaded.pad_token_id, loaded.bos_token_id, loaded.eos_token_id, loaded.unk_token_id) == (
        0,
        1,
        2,
        3,
    ), "special tokens lost their ids on the way to a file"
    assert loaded.chat_template, "the chat template is lost on the way to a file"
