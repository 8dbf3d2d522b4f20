"""The stages corpus, tokenizer and tokens, run by hand on a small text."""

import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import warm

from harness import SPECIAL_TOKENS, ConfigError, DataError, IncompatibleError, Mixture, PluginError, Tokenizer
from harness.axes.corpus import Document, Split
from harness.compose.typed import instance
from harness.data import documents, lineage, tokenization
from harness.data.token_files import TokenFiles, TokenWriter
from harness.method import Choice, Method
from harness.registry.known import registry
from harness.stage import Work
from harness.stages import tokens


def choice(axis: str, name: str, **options: Any) -> Choice:
    method = registry().get(axis, name)
    return Choice(axis=axis, method=method, config=method.Config(**options))


def of(method: type[Method]) -> Choice:
    return Choice(axis=method.axis, method=method, config=method.Config())


def run(stage: str, root: Path, choices: dict[str, Any], inputs: Mapping[str, Path]) -> dict[str, Any]:
    out = root / stage
    out.mkdir()
    work = Work(
        stage=stage,
        maker=registry().stage(stage),
        part="",
        config=None,
        choices=choices,
        inputs={kind: SimpleNamespace(path=path) for kind, path in inputs.items()},  # type: ignore[misc]
        seed=0,
        device="cpu",
        out=out,
        checkpoints=root,
        load=lambda key: pytest.fail("nothing to load"),
    )
    return registry().stage(stage)().run(work)


@pytest.fixture
def book(tmp_path: Path) -> Path:
    lines = (f"Chapter {n}: the ship of captain number {n * 37 % 101} sailed on.\n\n" for n in range(400))
    (tmp_path / "book.txt").write_text("".join(lines))
    return tmp_path / "book.txt"


def corpus(root: Path, book: Path, *filters: Choice) -> dict[str, Any]:
    source = choice("corpus", "text", path=str(book), document_bytes=100)
    return run("corpus", root, {"corpus": source, "filter": filters}, {})


def test_the_chain_of_data_stages(tmp_path: Path, book: Path) -> None:
    facts = corpus(tmp_path, book)
    assert sum(facts["num_bytes"][split]["text"] for split in facts["num_bytes"]) == book.stat().st_size
    made = {"documents": tmp_path / "corpus"}
    measured = run(
        "tokenizer", tmp_path, {"tokenizer": choice("tokenizer", "byte_bpe", vocab_size=350)}, made
    )
    assert measured["lossless_rate"] == 1.0
    assert measured["bytes_per_token"] > 1.5
    made["tokenizer"] = tmp_path / "tokenizer"
    tokens = run("tokens", tmp_path, {"mixture": choice("mixture", "proportional")}, made)
    assert tokens["weights"] == {"text": 1.0}
    files = TokenFiles(tmp_path / "tokens")
    from harness.data.tokenization import load_tokenizer

    tokenizer = load_tokenizer(tmp_path / "tokenizer")
    decoded = tokenizer.decode(files.tokens("train", "text").tolist())
    originals = documents.read(tmp_path / "corpus", "train")
    assert decoded == "".join(f"<|bos|>{document.text}<|eos|>" for document in originals)


def test_filters_run_in_order_and_report(tmp_path: Path, book: Path) -> None:
    first = choice("filter", "keyword", words=["captain"], patterns=[])
    second = choice("filter", "statistics")
    with pytest.raises(
        IncompatibleError, match=r"leaves no documents to train on: keyword dropped (\d+) of \1;"
    ):
        corpus(tmp_path, book, first, second)
    (tmp_path / "corpus").rename(tmp_path / "failed")
    masked = choice("filter", "pii")
    facts = corpus(tmp_path, book, masked, choice("filter", "dedup_document", threshold=0.9))
    assert [entry["filter"] for entry in facts["filters"]] == ["pii", "dedup_document"]
    assert facts["filters"][0]["dropped"] == 0
    assert facts["filters"][0]["seen"] == facts["filters"][1]["seen"]
    json.dumps(facts)


def test_a_dropped_document_is_named_with_its_filter_and_reason(tmp_path: Path) -> None:
    texts = ["mail me at jane@example.org please", "short words here", "forbidden text stands here", "left"]
    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in texts) + '{"text": null}\n'
    )
    options = {"on_error": "skip", "validation_share": 0.0, "test_share": 0.0}
    method = registry().get("corpus", "jsonl")
    config = instance(method.Config, {"path": str(tmp_path / "rows.jsonl"), **options}, where="corpus")
    chosen = choice("filter", "pii"), choice("filter", "keyword", words=["forbidden"], patterns=[])
    source = Choice(axis="corpus", method=method, config=config)
    facts = run("corpus", tmp_path, {"corpus": source, "filter": chosen}, {})
    masked, dropped, unread = sorted(lineage.rows(tmp_path / "corpus"), key=lambda row: row["id"] or "z")
    assert (masked["id"], masked["did"], masked["by"]) == ("rows.jsonl/0", "rewritten", "filter.pii")
    assert (dropped["id"], dropped["did"], dropped["by"]) == ("rows.jsonl/2", "dropped", "filter.keyword")
    assert facts["filters"][1]["reasons"] == {dropped["why"]: 1}
    assert "object 4 has no text under 'text'" in unread["why"]
    assert facts["kept"] == {"train": {"rows": 3 / 4}}


def test_two_documents_of_one_id_are_refused(tmp_path: Path) -> None:
    twin = Document(id="a", text="x", domain="d", split=Split.train)
    with pytest.raises(DataError, match="two documents have the id 'a'"):
        documents.write(tmp_path, [twin, twin])


def test_a_prefix_of_domains_in_turn_holds_all_domains(tmp_path: Path) -> None:
    found = [
        Document(id=f"{domain}{n}", text="x", domain=domain, split=Split.train)
        for domain in ("a", "b")
        for n in range(5)
    ]
    documents.write(tmp_path, found)
    names = [document.id for document in documents.domains_in_turn(tmp_path, "train", max_bytes=100)]
    assert names[:4] == ["a0", "b0", "a1", "b1"]
    assert sorted(names) == sorted(document.id for document in found)
    few = documents.domains_in_turn(tmp_path, "train", max_bytes=3)
    assert [document.id for document in few] == ["a0", "b0", "a1"]


class SpecialLast(Tokenizer):
    """Breaks the contract."""

    name = "special_last"

    def train(self, texts: Iterator[str]) -> Any:
        from tokenizers import Tokenizer as RustTokenizer
        from tokenizers import models

        entries = ["a", *SPECIAL_TOKENS]
        return RustTokenizer(models.BPE(vocab={entry: i for i, entry in enumerate(entries)}, merges=[]))


class TooMuch(Mixture):
    """Breaks the contract."""

    name = "too_much"

    def weights(self, num_tokens: Mapping[str, int]) -> dict[str, float]:
        return dict.fromkeys(num_tokens, 0.7)


def test_methods_that_break_their_contract_are_refused(tmp_path: Path, book: Path) -> None:
    corpus(tmp_path, book)
    made = {"documents": tmp_path / "corpus"}
    with pytest.raises(PluginError, match="tokenizer=special_last must put"):
        run("tokenizer", tmp_path, {"tokenizer": of(SpecialLast)}, made)
    (tmp_path / "tokenizer").rename(tmp_path / "failed")
    run("tokenizer", tmp_path, {"tokenizer": choice("tokenizer", "byte")}, made)
    with pytest.raises(ConfigError, match="mixture=too_much gives"):
        run("tokens", tmp_path, {"mixture": of(TooMuch)}, {**made, "tokenizer": tmp_path / "tokenizer"})


def test_a_pretrained_tokenizer_is_copied_and_used(tmp_path: Path, book: Path) -> None:
    corpus(tmp_path, book)
    (tmp_path / "theirs").mkdir()
    method = registry().get("tokenizer", "pretrained")
    config = method.trial(tmp_path / "theirs")  # type: ignore[attr-defined]
    made = {"documents": tmp_path / "corpus"}
    chosen = Choice(axis="tokenizer", method=method, config=config)
    assert run("tokenizer", tmp_path, {"tokenizer": chosen}, made)["lossless_rate"] == 1.0
    made["tokenizer"] = tmp_path / "tokenizer"
    run("tokens", tmp_path, {"mixture": choice("mixture", "proportional")}, made)
    files = TokenFiles(tmp_path / "tokens")
    assert files.vocab_size == 257
    assert files.tokens("train", "text")[-1] == files.eos_id == 0


def encode_until_killed(root: Path) -> None:
    """The stage tokens with a death after 200 documents; run in a process of its own."""
    add = TokenWriter.add

    def deadly(self: TokenWriter, *args: Any, **options: Any) -> None:
        add(self, *args, **options)
        if sum(entry["num_documents"] for split in self.splits.values() for entry in split.values()) == 200:
            for file in self.files.values():  # what lies on disk unsaved is cut off later
                file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    tokens.SAVE_BYTES, TokenWriter.add = 5_000, deadly  # type: ignore[method-assign]
    made = {"documents": root / "corpus", "tokenizer": root / "tokenizer"}
    run("tokens", root, {"mixture": choice("mixture", "proportional")}, made)


def test_a_killed_encoding_goes_on_from_what_it_had_saved(
    tmp_path: Path, book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {"documents": tmp_path / "corpus", "tokenizer": tmp_path / "tokenizer"}
    corpus(tmp_path, book)
    run("tokenizer", tmp_path, {"tokenizer": choice("tokenizer", "byte_bpe", vocab_size=350)}, made)
    code = "import sys, pathlib, test_data_stages as t; t.encode_until_killed(pathlib.Path(sys.argv[1]))"
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    killed = warm.run(
        ["-c", code, str(tmp_path)], cwd=tmp_path, environment={**os.environ, "PYTHONPATH": path}
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (tmp_path / "tokens").rmdir()
    encoded: list[int] = []
    encode = tokenization.encode

    def counted(rust: Any, texts: Iterator[str]) -> Iterator[Any]:
        for ids in encode(rust, texts):
            encoded.append(len(ids))
            yield ids

    monkeypatch.setattr(tokenization, "encode", counted)
    shares = {"mixture": choice("mixture", "proportional")}
    found = run("tokens", tmp_path, shares, made)
    assert 0 < len(encoded) < len(documents.read(tmp_path / "corpus")) - 100
    whole = tmp_path / "whole"
    whole.mkdir()
    assert run("tokens", whole, shares, made) == found
    for file in (whole / "tokens").iterdir():
        assert (tmp_path / "tokens" / file.name).read_bytes() == file.read_bytes(), file.name
