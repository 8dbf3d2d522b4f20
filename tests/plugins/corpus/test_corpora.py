"""Facts about single corpora, and what is said about input that is not what it should be."""

import bz2
import gzip
import hashlib
import json
import lzma
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from harness_plugins.corpus.huggingface import HuggingFace
from harness_plugins.corpus.jsonl import Jsonl
from harness_plugins.corpus.planted import KINDS, Planted
from harness_plugins.corpus.recall import Recall
from harness_plugins.corpus.stdlib import Stdlib
from harness_plugins.corpus.text import Text

from harness import ConfigError, Damage, DataError, OnError, Split, read_lines, read_rows
from harness.compose.typed import instance
from harness.conformance.test_corpus import documents
from harness.registry.known import registry


def test_the_standard_library_rests_on_its_sources() -> None:
    files = Stdlib.reads(Stdlib.Config())
    assert files["json/decoder.py"] == Path(json.decoder.__file__)
    assert files["pydoc_data/topics.py"].is_file()


def test_the_standard_library_has_code_and_docs() -> None:
    found = list(Stdlib(Stdlib.Config(max_bytes=400_000)).documents())
    size = {d: sum(len(x.text.encode()) for x in found if x.domain == d) for d in ("code", "docs")}
    assert 200_000 < size["code"] <= 400_000
    assert 200_000 < size["docs"] <= 400_000


def test_a_modules_code_and_docs_are_in_one_split() -> None:
    splits: dict[str, set[Split]] = {}
    for document in Stdlib(Stdlib.Config(max_bytes=1_000_000)).documents():
        splits.setdefault(document.id.partition("/")[2], set()).add(document.split)
    assert all(len(found) == 1 for found in splits.values())
    assert sum(len(found) for found in splits.values()) > 100


def test_docs_hold_no_code() -> None:
    found = list(Stdlib(Stdlib.Config(domains=["docs"], max_bytes=500_000)).documents())
    lines = [line for document in found for line in document.text.splitlines()]
    assert sum(line.startswith("def ") for line in lines) / len(lines) < 0.01


def test_noise_is_as_much_as_was_asked_for_trains_alone_and_has_no_pattern() -> None:
    found = list(Stdlib(Stdlib.Config(domains=["docs"], max_bytes=100_000, noise_bytes=31_000)).documents())
    noise = [document for document in found if document.domain == "noise"]
    assert sum(len(document.text.encode()) for document in noise) == 31_000
    assert {document.split for document in noise} == {Split.train}
    text = "".join(document.text for document in noise).encode()
    assert len(zlib.compress(text, 9)) > 0.8 * len(text)  # ln 100 / ln 256 = 0.83
    plain = list(Stdlib(Stdlib.Config(domains=["docs"], max_bytes=100_000)).documents())
    assert [d for d in found if d.domain != "noise"] == plain


def test_pieces_of_a_text_make_the_text_again(tmp_path: Path) -> None:
    text = "".join(f"Verse {n}\nof the poem.\n\n" for n in range(500))
    (tmp_path / "poem.txt").write_text(text)
    config = Text.Config(path=str(tmp_path), document_bytes=200)
    found = list(Text(config).documents())
    assert len(found) > 30
    assert "".join(document.text for document in found) == text


def test_text_that_is_not_utf8_is_named_with_its_byte(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes("fine\nna\u00efve".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.txt:2 is not UTF-8: byte 0xef at offset 7"):
        list(Text(Text.Config(path=str(path))).documents())


def test_an_empty_text_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text(" \n")
    with pytest.raises(DataError, match=r"empty\.txt is empty"):
        list(Text(Text.Config(path=str(tmp_path / "empty.txt"))).documents())


def test_a_path_that_does_not_exist_is_named() -> None:
    with pytest.raises(DataError, match=r"corpus\.path: no file or folder 'nowhere'"):
        list(Text(Text.Config(path="nowhere")).documents())
    with pytest.raises(DataError, match=r"corpus\.path is empty"):
        list(Jsonl().documents())


def test_json_lines_name_line_and_byte_of_what_is_broken(tmp_path: Path) -> None:
    path = tmp_path / "pages.jsonl"
    path.write_text('{"text": "caf\u00e9"}\n{"text": \n')
    with pytest.raises(DataError, match=r"pages\.jsonl:2: not JSON: .* at byte \d+"):
        list(Jsonl(Jsonl.Config(path=str(path))).documents())
    path.write_text('{"body": "x"}\n')
    with pytest.raises(DataError, match=r"no text under 'text'.*\['body'\]"):
        list(Jsonl(Jsonl.Config(path=str(path))).documents())


def test_json_lines_may_be_packed(tmp_path: Path) -> None:
    rows = "".join(json.dumps({"text": f"row {n}", "kind": "ab"[n % 2]}) + "\n" for n in range(10))
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(rows.encode()))
    found = list(Jsonl(Jsonl.Config(path=str(tmp_path), domain_field="kind")).documents())
    assert [d.domain for d in found] == ["a", "b"] * 5
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(rows.encode())[:-9])
    with pytest.raises(DataError, match="not a whole gzip file"):
        list(Jsonl(Jsonl.Config(path=str(tmp_path))).documents())


def test_a_saved_data_set_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"text": ["one", "two"]}).save_to_disk(str(tmp_path / "saved"))
    found = list(HuggingFace(HuggingFace.Config(path=str(tmp_path / "saved"))).documents())
    assert [document.text for document in found] == ["one", "two"]


def test_a_data_set_that_cannot_be_had_is_an_error() -> None:
    with pytest.raises(DataError, match="cannot load 'nobody/nothing'"):
        list(HuggingFace(HuggingFace.Config(path="nobody/nothing")).documents())


def test_recall_never_trains_on_what_it_tests() -> None:
    lines: dict[Split, set[str]] = {split: set() for split in Split}
    for document in Recall(Recall.Config(num_documents=300)).documents():
        lines[document.split].update(document.text.splitlines())
    assert not lines[Split.train] & lines[Split.test]
    assert {line.split()[0] for line in lines[Split.test]} == {"Copy:", "Recall:", "Find:"}


def test_an_unknown_domain_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"corpus\.domains"):
        Stdlib.Config(domains=["news"])


@pytest.mark.shared
def test_tinyshakespeare_is_read_whole(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "tinyshakespeare.txt"
    found = list(Text(Text.Config(path=str(path))).documents())
    joined = "".join(document.text for document in found)
    assert hashlib.sha256(joined.encode()).hexdigest() == hashlib.sha256(path.read_bytes()).hexdigest()
    assert {document.split for document in found} == set(Split)
    assert documents(Text, tmp_path)


def written(folder: Path, name: str, lines: list[bytes]) -> Path:
    """A file of lines below a folder."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"".join(line + b"\n" for line in lines))
    return file


def jsonl(path: Path, **options: Any) -> Any:
    method = registry().get("corpus", "jsonl")
    return method(instance(method.Config, {"path": str(path), **options}, where="corpus"))


def test_files_of_one_name_in_two_folders_are_two_domains(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        written(tmp_path / "web", f"{folder}/part-0.jsonl", [b'{"text": "of %s"}' % folder.encode()])
    found = list(jsonl(tmp_path / "web").documents())
    assert [document.text for document in found] == ["of a", "of b"]
    assert len({document.id for document in found}) == 2
    assert [document.domain for document in found] == ["web/a/part-0", "web/b/part-0"]


DAMAGED = {
    "half a pair": (b'{"text": "\\ud83d"}', "half a surrogate pair"),
    "no JSON": (b'{"text": "x"', "not JSON"),
    "a bad byte": (b'{"text": "na\xefve"}', "is not UTF-8: byte 0xef"),
    "no text": (b'{"text": null}', "has no text under 'text'"),
    "a list": (b'["text"]', "not an object but list"),
    "deep brackets": (b'{"text": "x", "tree": ' + b"[" * 99_999 + b"]" * 99_999 + b"}", "maximum recursion"),
    "a long integer": (b'{"text": "x", "id": ' + b"7" * 5_000 + b"}", "Exceeds the limit"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_line_ends_the_run_or_is_counted_and_named(kind: str, tmp_path: Path) -> None:
    line, reason = DAMAGED[kind]
    file = written(tmp_path, "f.jsonl", [b'{"text": "first"}', line, b'{"text": "last \\ud83d\\ude00"}'])
    with pytest.raises(DataError, match=reason):
        list(jsonl(file).documents())
    corpus = jsonl(file, on_error="skip")
    assert [document.text for document in corpus.documents()] == ["first", "last \U0001f600"]
    assert corpus.damage.count == 1
    (named,) = corpus.damage.first
    assert reason in named
    assert "f.jsonl" in named


def test_a_row_of_a_table_that_is_not_utf8_is_named_and_left_out(tmp_path: Path) -> None:
    texts = pa.array([b"first", b"na\xefve", b"last"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": texts}), tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"rows\.parquet: row 1 is not UTF-8"):
        list(jsonl(tmp_path).documents())
    corpus = jsonl(tmp_path, on_error="skip")
    assert [document.text for document in corpus.documents()] == ["first", "last"]
    assert corpus.damage.count == 1


def test_what_stands_before_the_break_of_a_file_is_read_and_the_break_named(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"text": [f"row {number}" for number in range(3_000)]}),
        tmp_path / "a.parquet",
        row_group_size=1_000,
    )
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    start = pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(2).column(0).data_page_offset
    data[start : start + 400] = bytes(400)
    (tmp_path / "a.parquet").write_bytes(data)
    rows = "".join(f'{{"text": "{number * number}"}}\n' for number in range(3_000))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(rows.encode())[:-2_000])
    (tmp_path / "c.jsonl").write_text("")
    written(tmp_path, "d.jsonl", [b'{"text": "after them"}'])
    with pytest.raises(DataError, match=r"a\.parquet is not a whole Parquet file"):
        list(jsonl(tmp_path).documents())
    corpus = jsonl(tmp_path, on_error="skip")
    found = [document.text for document in corpus.documents()]
    assert found[:1_000] == [f"row {number}" for number in range(1_000)]
    assert "100" in found
    assert found[-1] == "after them"
    assert [
        word for line in corpus.damage.first for word in ("Parquet", "gzip", "empty") if word in line
    ] == ["Parquet", "gzip", "empty"]


NOTHING_IN = {
    "rows.jsonl": (b"", "is empty"),
    "rows.json": (b"[]", "is empty"),
    "cut.json": (b'[\n{"text": "a"', "cut.json:2: not JSON"),
    "rows.json.gz": (gzip.compress(b'[\n{"text": "a"}]')[:12], "not a whole gzip file"),
    "rows.parquet": (b"", "is empty"),
    "rows.arrow": (b"", "is empty"),
    "book.txt": (b"\r\n \r", "is empty"),
    "rows.jsonl.gz": (gzip.compress(b'{"text": "a"}')[:12], "not a whole gzip file"),
    "book.txt.gz": (gzip.compress(b"a book")[:12], "not a whole gzip file"),
    "book.md": (b"na\xefve", "not UTF-8"),
}


@pytest.mark.parametrize("name", NOTHING_IN)
def test_a_file_of_which_nothing_is_read_is_damaged_once(name: str, tmp_path: Path) -> None:
    data, reason = NOTHING_IN[name]
    file, table = tmp_path / name, pa.table({"text": pa.array([], pa.string())})
    file.write_bytes(data)
    if name.endswith(".parquet"):
        pq.write_table(table, file)
    elif name.endswith(".arrow"):
        with pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    read: Any = read_lines if file.name.startswith("book") else read_rows
    with pytest.raises(DataError, match=reason):
        list(read(file))
    damage = Damage()
    assert list(read(file, damaged=damage.add)) in ([], ["\n", " \n"])
    assert damage.count == 1
    assert reason in damage.first[0]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_documents_of_a_text_do_not_depend_on_how_its_lines_end(newline: str, tmp_path: Path) -> None:
    lines = ["one", "", "two", "", "", "three and more"]
    (tmp_path / "book.txt").write_bytes(newline.join(lines).encode())
    config = Text.Config(path=str(tmp_path / "book.txt"), document_bytes=3)
    texts = [document.text for document in Text(config).documents()]
    assert texts == ["one\n\n", "two\n\n", "\nthree and more"]
    (tmp_path / "book.txt").write_bytes(newline.join([*lines, "na"]).encode() + b"\xef")
    with pytest.raises(DataError, match=rf"txt:7 is not UTF-8: byte 0xef at offset {22 + 6 * len(newline)};"):
        list(Text(config).documents())


def test_hidden_files_of_a_folder_are_no_data(tmp_path: Path) -> None:
    written(tmp_path, "data/a.jsonl", [b'{"text": "seen"}'])
    written(tmp_path, "data/._a.jsonl", [b"\x00\x05\x16\x07"])
    written(tmp_path, "data/.ipynb_checkpoints/a.jsonl", [b'{"text": "an old copy"}'])
    assert [document.text for document in jsonl(tmp_path / "data").documents()] == ["seen"]


@pytest.mark.parametrize("ending", ["jsonl.gz", "jsonl.zst", "parquet", "arrow"])
def test_rows_are_read_from_every_container(ending: str, tmp_path: Path) -> None:
    rows = [{"text": f"row {number}", "split": "train" if number else "valid"} for number in range(5)]
    data, table = "".join(json.dumps(row) + "\n" for row in rows).encode(), pa.Table.from_pylist(rows)
    file = tmp_path / f"rows.{ending}"
    if ending == "parquet":
        pq.write_table(table, file)
    elif ending == "arrow":
        with pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    else:
        with pa.output_stream(file, compression="gzip" if ending.endswith("gz") else "zstd") as stream:
            stream.write(data)
    found = list(jsonl(file, split_field="split").documents())
    assert [document.text for document in found] == [row["text"] for row in rows]
    assert [document.split for document in found] == [Split.validation, *[Split.train] * 4]


def test_splits_are_named_in_many_words_and_a_row_of_none_is_damage(tmp_path: Path) -> None:
    words = ["Train", "training", "TEST", "testing", " dev", "Validation", "eval", "", None, "holdout"]
    rows = [json.dumps({"text": f"t{n}", "part": word}).encode() for n, word in enumerate(words)]
    file = written(tmp_path, "rows.jsonl", rows)
    with pytest.raises(DataError, match=r"object 7 has '' under 'part'; a split is one of .*on_error=skip"):
        list(jsonl(file, split_field="part").documents())
    corpus = jsonl(file, split_field="part", on_error="skip")
    found = [document.split.value for document in corpus.documents()]
    assert found == ["train"] * 2 + ["test"] * 2 + ["validation"] * 3
    assert corpus.damage.count == 3


def test_fields_may_lie_within_others(tmp_path: Path) -> None:
    rows = [
        {"page": {"text": "inner", "meta": {"site": 0, "part": "test"}}},
        {"page.text": "outer", "page": {"text": "inner", "meta": {"part": "train"}}},
        {"page": "none"},
        {"page": None},
    ]
    file = written(tmp_path, "rows.jsonl", [json.dumps(row).encode() for row in rows])
    options = {"text_field": "page.text", "domain_field": "page.meta.site", "split_field": "page.meta.part"}
    corpus = jsonl(file, on_error="skip", **options)
    found = [(d.text, d.domain, d.split.value) for d in corpus.documents()]
    assert found == [("inner", "0", "test"), ("outer", "rows", "train")]
    assert corpus.damage.count == 2


def test_held_out_files_of_ones_own_are_the_only_held_out_documents(tmp_path: Path) -> None:
    many = written(tmp_path, "train.jsonl", [b'{"text": "%d"}' % number for number in range(300)])
    few = written(tmp_path, "held.jsonl", [b'{"text": "held"}'])
    found = list(jsonl(many, validation_path=str(few)).documents())
    assert [d.text for d in found if d.split is Split.validation] == ["held"]
    assert any(d.split is Split.test for d in found), "the test split still comes from `path`"
    assert not any(
        d.split is Split.test for d in jsonl(many, test_path=str(few)).documents() if d.text != "held"
    )


@pytest.mark.parametrize("document_bytes", [None, 40])
def test_a_text_is_cut_by_position_at_the_very_character(document_bytes: int | None, tmp_path: Path) -> None:
    text = "".join(f"line {number}\n" + ("\n" if number % 3 == 0 else "") for number in range(100))
    (tmp_path / "book.txt").write_text(text)
    method = registry().get("corpus", "text")
    options = {"path": str(tmp_path / "book.txt"), "split_by": "position", "document_bytes": document_bytes}
    options |= {"validation_share": 0.1, "test_share": 0.0}
    found = list(method(instance(method.Config, options, where="corpus")).documents())  # type: ignore[attr-defined]
    parts = {split: "".join(d.text for d in found if d.split is split) for split in Split}
    border = round(len(text) * 0.9)
    assert parts == {Split.train: text[:border], Split.validation: text[border:], Split.test: ""}
    assert len({document.id for document in found}) == len(found)


def test_a_large_file_is_not_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "large.jsonl"
    with file.open("w") as stream:
        for number in range(20_000):
            stream.write(json.dumps({"text": f"{number} " * 200}) + "\n")
    tracemalloc.start()
    for _ in jsonl(file).documents():
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000 < file.stat().st_size / 10


HALVES = {
    "a low half": (rb'{"text": "x \udc00 y"}', "half a surrogate pair"),
    "a pair the wrong way round": (rb'{"text": "\uDE00\uD83D"}', "half a surrogate pair"),
    "a half in a key": (rb'{"text": "fine", "\ud800": 1}', "half a surrogate pair"),
    "a half deep inside": (rb'{"text": "fine", "meta": {"tags": ["\uD834"]}}', "half a surrogate pair"),
    "a bad byte in a key": (b'{"text": "fine", "na\xefve": 1}', "is not UTF-8: byte 0xef"),
    "a number for a text": (b'{"text": 7}', "has int, not text, under 'text'"),
    "a bare word": (b"nothing", "not JSON"),
}


@pytest.mark.parametrize("kind", HALVES)
def test_more_damage_is_named_with_its_line_and_the_rest_is_read(kind: str, tmp_path: Path) -> None:
    line, reason = HALVES[kind]
    lines = [b'{"text": "first"}', b"", line, rb'{"text": "a backslash: \\ud83d"}']
    file = written(tmp_path, "f.jsonl", lines)
    with pytest.raises(DataError, match=reason):
        list(jsonl(file).documents())
    corpus = jsonl(file, on_error="skip")
    assert [document.text for document in corpus.documents()] == ["first", r"a backslash: \ud83d"]
    assert (corpus.damage.count, len(corpus.damage.first)) == (1, 1)
    assert reason in corpus.damage.first[0]


OTHER_ENCODINGS = {
    "UTF-16": ("utf-16", "is in UTF-16 or UTF-32"),
    "UTF-32, big end first, with a mark": ("utf-32-be", "is in UTF-16 or UTF-32"),
    "UTF-16 without a mark": ("utf-16-le", "holds zero bytes"),
}


@pytest.mark.parametrize("kind", OTHER_ENCODINGS)
@pytest.mark.parametrize(
    ("name", "kept"), [("text", "book.txt"), ("jsonl", "rows.jsonl"), ("text", "book.txt.gz")]
)
def test_no_line_of_a_file_in_another_encoding_is_learned(
    kind: str, name: str, kept: str, tmp_path: Path
) -> None:
    coding, reason = OTHER_ENCODINGS[kind]
    mark = "\ufeff" if coding == "utf-32-be" else ""
    raw = (mark + '{"text": "Zwei Wörter."}\n\n' * 3).encode(coding)
    (tmp_path / kept).write_bytes(gzip.compress(raw) if kept.endswith(".gz") else raw)
    method = registry().get("corpus", name)
    with pytest.raises(DataError, match=f"{kept} {reason}.*; convert it, e.g. with iconv"):
        list(method(method.Config(path=str(tmp_path))).documents())
    corpus = method(method.Config(path=str(tmp_path), on_error=OnError.skip))
    assert list(corpus.documents()) == []
    assert reason in corpus.damage.first[0]


def test_endings_may_be_in_capitals(tmp_path: Path) -> None:
    (tmp_path / "PART.JSONL.GZ").write_bytes(gzip.compress(b'{"text": "a"}\n'))
    pq.write_table(pa.table({"text": ["b"]}), tmp_path / "Part.Parquet")
    found = list(jsonl(tmp_path).documents())
    assert [document.text for document in found] == ["a", "b"]
    assert [document.domain.partition("/")[2] for document in found] == ["PART", "Part"]


def test_rows_without_text_in_a_table_are_left_out_and_counted(tmp_path: Path) -> None:
    table = pa.table({"text": ["one", None, "three", None], "n": [1, 2, 3, 4]})
    pq.write_table(table, tmp_path / "rows.parquet")
    with pa.ipc.new_file(tmp_path / "rows.arrow", table.schema) as writer:
        writer.write_table(table)
    for name in ("rows.parquet", "rows.arrow"):
        with pytest.raises(DataError, match=rf"{name}: object 1 has no text under 'text'"):
            list(jsonl(tmp_path / name).documents())
        corpus = jsonl(tmp_path / name, on_error="skip")
        assert [document.text for document in corpus.documents()] == ["one", "three"]
        assert corpus.damage.count == 2


def test_a_pattern_reads_what_it_says_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b/2.jsonl", "a/1.jsonl", "a/deep/3.jsonl", "a/1.txt"):
        written(tmp_path, name, [b'{"text": "%s"}' % name.encode()])
    (tmp_path / "b" / "4.jsonl.zst").write_bytes(
        pa.Codec("zstd").compress(b'{"text": "b/4"}\n', asbytes=True)
    )
    for pattern, texts in {
        "*/*.jsonl": ["a/1.jsonl", "b/2.jsonl"],
        "**/*.jsonl": ["a/1.jsonl", "a/deep/3.jsonl", "b/2.jsonl"],
        "b/*": ["b/2.jsonl", "b/4"],
    }.items():
        found = list(jsonl(tmp_path / pattern).documents())
        assert sorted(document.text for document in found) == texts, pattern
        assert len({document.id for document in found}) == len(found)
    with pytest.raises(DataError, match="nothing"):
        list(jsonl(tmp_path / "nothing*.jsonl").documents())


def test_texts_may_be_packed_by_zstd_and_a_cut_one_is_named(tmp_path: Path) -> None:
    packed = pa.Codec("zstd").compress(("A line of text.\n\n" * 2000).encode(), asbytes=True)
    (tmp_path / "book.txt.zst").write_bytes(packed)
    found = list(Text(Text.Config(path=str(tmp_path / "book.txt.zst"))).documents())
    assert "".join(document.text for document in found) == "A line of text.\n\n" * 2000
    (tmp_path / "book.txt.zst").write_bytes(packed[:-5])
    with pytest.raises(DataError, match=r"book\.txt\.zst is not a whole zstd file"):
        list(Text(Text.Config(path=str(tmp_path / "book.txt.zst"))).documents())


def test_a_data_sets_own_splits_are_the_held_out_documents(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = {"train": [f"t{n}" for n in range(200)], "validation": ["v"], "test": ["e", " ", "f"]}
    made = {name: datasets.Dataset.from_dict({"text": texts}) for name, texts in rows.items()}
    datasets.DatasetDict(made).save_to_disk(str(tmp_path / "wiki"))
    both = HuggingFace.Config(path=str(tmp_path / "wiki"), validation_split="validation", test_split="test")
    found = list(HuggingFace(both).documents())
    texts = {split: [d.text for d in found if d.split is split] for split in Split}
    assert texts == {Split.train: rows["train"], Split.validation: ["v"], Split.test: ["e", "f"]}
    assert len({document.id for document in found}) == len(found)
    one = HuggingFace.Config(path=str(tmp_path / "wiki"), test_split="test")
    held_out = [d.text for d in HuggingFace(one).documents() if d.split is Split.validation]
    assert held_out
    assert set(held_out) < set(rows["train"])


def test_planted_faults_are_what_they_are_called() -> None:
    found = list(Planted(Planted.Config(max_bytes=400_000)).documents())
    train = [document for document in found if document.split is Split.train]
    size = {kind: sum(len(d.text.encode()) for d in train if d.domain == kind) for kind in ("docs", *KINDS)}
    assert sum(size[kind] for kind in KINDS) / sum(size.values()) == pytest.approx(0.5, abs=0.1)
    tests = {d.text for d in found if d.split is Split.test and d.domain == "docs"}
    assert {d.text for d in train if d.domain == "contamination"} <= tests
    assert not tests & {d.text for d in train if d.domain == "docs"}
    planted = "".join(d.text for d in train if d.domain == "pii")
    assert all(d.text in planted for d in found if d.domain == "records_planted")
    assert not any(d.text in planted for d in found if d.domain == "records_fresh")
    for document in (d for d in train if d.domain == "duplicates"):
        words = document.text.split(" ")
        originals = [d.text.split(" ") for d in train if d.domain == "docs"]
        same = [sum(a == b for a, b in zip(words, o, strict=True)) for o in originals if len(o) == len(words)]
        assert max(same) > 0.9 * len(words)


@pytest.mark.parametrize(
    ("kind", "name", "least"),
    [("noise", "perplexity", 1.0), ("duplicates", "dedup_document", 0.7), ("pii", "pii", 1.0)],
)
def test_filters_find_what_is_planted(kind: str, name: str, least: float) -> None:
    found = list(Planted(Planted.Config(kinds=[kind], max_bytes=400_000)).documents())
    method = registry().get("filter", name)()
    kept = {d.id: d for d in method.apply(iter(found))}  # type: ignore[attr-defined]
    planted = [d for d in found if d.domain == kind]
    assert sum(kept.get(d.id) != d for d in planted) >= least * len(planted)


def test_without_faults_the_test_documents_are_the_same() -> None:
    def held_out(**options: Any) -> list[str]:
        found = Planted(Planted.Config(max_bytes=300_000, **options)).documents()
        return [document.id for document in found if document.split is not Split.train]

    assert held_out(kinds=[]) == held_out() == held_out(kinds=["noise"], share=0.9)


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_packed_files_are_read_by_their_names(tmp_path: Path, kind: str) -> None:
    packed: Any = {"gz": gzip, "bz2": bz2, "xz": lzma}[kind]
    whole = packed.compress(b'{"text": "one"}\n{"text": "two"}\n' * 500)
    (tmp_path / f"part.jsonl.{kind}").write_bytes(whole)
    source = Jsonl(Jsonl.Config(path=str(tmp_path)))
    read = [document.text for document in source.documents()]
    assert read == ["one", "two"] * 500
    (tmp_path / f"part.jsonl.{kind}").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="not a whole"):
        list(source.documents())
