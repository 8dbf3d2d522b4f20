"""Facts about single tokenizers, against the libraries that made them."""

from pathlib import Path

import pytest
import sentencepiece
from harness_plugins.tokenizer import _sentencepiece
from harness_plugins.tokenizer.byte import Byte
from harness_plugins.tokenizer.byte_bpe import ByteBpe
from harness_plugins.tokenizer.character import Character
from harness_plugins.tokenizer.pretrained import Pretrained
from harness_plugins.tokenizer.wordpiece import WordPiece
from tokenizers import Tokenizer as RustTokenizer
from tokenizers import models, pre_tokenizers, trainers

from harness import SPECIAL_TOKENS, ConfigError, DataError
from harness.data.tokenization import encode, load_rust, measure, save_tokenizer, special_ids
from harness.registry.known import registry

TEXTS = [
    "The tokenizer reads the text, and the text is read by the tokenizer.\n" * 5,
    "def tokenize(text):\n    return [token for token in text.split()]\n" * 5,
    "Numbers such as 1234 and 99 are split; caf\u00e9s are not.\n" * 5,
]


def test_bytes_are_one_token_each() -> None:
    tokenizer = Byte().train(iter(()))
    text = "na\u00efve \U0001f600"
    assert len(tokenizer.encode(text, add_special_tokens=False).ids) == len(text.encode())
    assert tokenizer.get_vocab_size() == len(SPECIAL_TOKENS) + 256


def test_characters_are_one_token_each_and_unseen_ones_unknown() -> None:
    tokenizer = Character().train(iter(["na\u00efve \U0001f600\n", "text\r\n"]))
    text = "\U0001f600 \r\nvexna\u00ef"
    assert tokenizer.encode(text, add_special_tokens=False).tokens == list(text)
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids) == text
    assert tokenizer.encode("tZt", add_special_tokens=False).tokens == ["t", "<|unk|>", "t"]
    assert tokenizer.get_vocab_size() == len(SPECIAL_TOKENS) + len(set("na\u00efve \U0001f600\ntext\r\n"))


def test_only_the_most_frequent_characters_have_room() -> None:
    tokenizer = Character(Character.Config(vocab_size=len(SPECIAL_TOKENS) + 2)).train(iter(["abcbcc"]))
    assert tokenizer.encode("abc", add_special_tokens=False).tokens == ["<|unk|>", "b", "c"]


def test_byte_bpe_equals_the_library_given_the_same_splits() -> None:
    ours = ByteBpe(ByteBpe.Config(vocab_size=300)).train(iter(TEXTS))
    oracle = RustTokenizer(models.BPE())
    oracle.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    oracle.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        ),
    )
    for text in TEXTS:
        assert ours.encode(text, add_special_tokens=False).tokens == (
            oracle.encode(text, add_special_tokens=False).tokens
        )


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_sentencepiece_tokens_are_those_of_the_library(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[sentencepiece.SentencePieceProcessor] = []
    learn = _sentencepiece.learn
    method = registry().get("tokenizer", f"sentencepiece_{kind}")

    def keeping(*args: object, **options: object) -> object:
        kept.append(learn(*args, **options))  # type: ignore[arg-type]
        return kept[-1]

    monkeypatch.setitem(method.train.__globals__, "learn", keeping)  # type: ignore[attr-defined]
    tokenizer = method(method.Config(vocab_size=420)).train(iter(TEXTS))  # type: ignore[attr-defined,call-arg]
    for text in ["The text reads the tokenizer.", "  two  spaces", "caf\u00e9 \U0001f600 x=12", *TEXTS]:
        expected = [i for line in [text.replace("\n", "")] for i in kept[0].encode(line)]
        assert tokenizer.encode(text.replace("\n", ""), add_special_tokens=False).ids == expected


def test_wordpiece_takes_the_longest_match_first() -> None:
    tokenizer = WordPiece(WordPiece.Config(vocab_size=200)).train(iter(TEXTS))
    vocab = tokenizer.get_vocab()
    for word in ("tokenizer", "reads", "numbers"):
        rest, expected = word, []
        while rest:
            prefix = "##" if expected else ""
            size = max(n for n in range(1, len(rest) + 1) if prefix + rest[:n] in vocab)
            expected.append(prefix + rest[:size])
            rest = rest[size:]
        assert tokenizer.encode(word, add_special_tokens=False).tokens == expected


def test_wordpiece_states_its_unknown_rate() -> None:
    tokenizer = WordPiece(WordPiece.Config(vocab_size=200)).train(iter(TEXTS))
    facts = measure(tokenizer, ["text \u4e2d\u6587 text"], unk_id=3)
    assert facts["unknown_rate"] == pytest.approx(1 / facts["measured_on"]["tokens"])
    assert facts["lossless_rate"] == 0


def test_measures_are_those_of_their_definition() -> None:
    facts = measure(Byte().train(iter(())), ["ab cd"], unk_id=3)
    assert facts["bytes_per_token"] == 1.0
    assert facts["fertility"] == 2.5
    assert facts["vocabulary_use"] == pytest.approx(5 / 263)
    assert (facts["unknown_rate"], facts["lossless_rate"]) == (0.0, 1.0)


def test_a_missing_pretrained_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no tokenizer\.json"):
        Pretrained(Pretrained.Config(path=str(tmp_path), vocab_size=300)).directory()
    with pytest.raises(ConfigError, match=r"holds no tokenizer\.json"):
        Pretrained.Config(path=str(tmp_path))  # whose entries the message would state
    with pytest.raises(ConfigError, match=r"tokenizer\.path"):
        Pretrained().directory()


def test_bytes_have_one_vocabulary() -> None:
    with pytest.raises(ConfigError, match="must be 263"):
        Byte.Config(vocab_size=300)


@pytest.mark.parametrize("kind", ["sentencepiece_bpe", "sentencepiece_unigram"])
def test_words_of_a_very_long_line_are_learned(kind: str) -> None:
    """The library drops lines of more than 4,192 bytes in silence; here all text is one line of 60,000."""
    method = registry().get("tokenizer", kind)
    line = " ".join(f"zebrafish{number % 10} swims" for number in range(3000))
    assert len(line) > 50_000
    rust = method(method.Config(vocab_size=400)).train(iter([line]))  # type: ignore[attr-defined]
    assert len(rust.encode("zebrafish", add_special_tokens=False).ids) <= 2


TRAINED = ["byte", "byte_bpe", "bpe", "unigram", "sentencepiece_bpe", "sentencepiece_unigram", "character"]


@pytest.mark.parametrize("kind", TRAINED)
def test_a_special_token_in_a_document_is_text(kind: str, tmp_path: Path) -> None:
    method = registry().get("tokenizer", kind)
    texts = [*TEXTS, "a<|eos|>b <|user|> |<>assistantmaskpadbosunk0x41"]
    trained = method(method.trial(tmp_path)).train(iter(texts))  # type: ignore[attr-defined]
    save_tokenizer(trained, tmp_path / "saved")
    rust, special = load_rust(tmp_path / "saved"), special_ids(tmp_path / "saved")
    for token in (*SPECIAL_TOKENS, "<0x41>"):
        text = f"a{token}b"
        (ids,) = encode(rust, [text])
        assert not set(ids) & {trained.token_to_id(name) for name in SPECIAL_TOKENS}, token
        assert rust.decode(list(ids), skip_special_tokens=False) == text
    assert special["eos"] == SPECIAL_TOKENS.index("<|eos|>")
