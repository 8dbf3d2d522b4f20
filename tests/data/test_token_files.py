"""Token files and packed windows: nothing lost, nothing crossed, every draw decided by the seed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from harness_plugins.curriculum.length_ramp import LengthRamp
from harness_plugins.curriculum.staged import Staged

from harness.axes.corpus import Split
from harness.data.packed_source import PackedSource, document_ids, language_modeling_rows, positions
from harness.data.template import IGNORED
from harness.data.token_files import TokenFiles, TokenWriter
from harness.errors import ConfigError, DataError
from harness.registry.known import registry
from harness.training.contract import COUNTS, next_rows
from harness.training.examples import rows_of

BOS, EOS = 1, 2


def files(directory: Path, *, weights: dict[str, float] | None = None) -> TokenFiles:
    """Two domains: `code` of 40 documents of 10 tokens, `docs` of 10 documents of 25."""
    writer = TokenWriter(directory, vocab_size=300, bos_id=BOS, eos_id=EOS)
    for domain, number, length, first in (("code", 40, 10, 10), ("docs", 10, 25, 150)):
        for index in range(number):
            ids = [first + (index + step) % 100 for step in range(length)]
            writer.add("train", domain, ids, num_bytes=3 * length)
    writer.finish(Split.train)
    writer.write_index(weights or {"code": 0.5, "docs": 0.5})
    return TokenFiles(directory)


def test_documents_are_stored_between_bos_and_eos(tmp_path: Path) -> None:
    found = files(tmp_path)
    tokens = found.tokens("train", "code")
    assert len(tokens) == found.num_tokens("train")["code"] == 40 * 12
    assert tokens[:12].tolist() == [BOS, *range(10, 20), EOS]
    assert found.bytes_per_token("train", "code") == 30 / 12
    assert tokens.dtype == np.uint16


def test_a_round_meets_every_window_of_a_domain_once(tmp_path: Path) -> None:
    found = files(tmp_path, weights={"code": 1.0, "docs": 0.0})
    source = PackedSource(found, length=16, seed=0, planned=30)
    batch = source.next(30)
    stream = np.append(found.tokens("train", "code"), [EOS] * 16)
    expected = sorted(tuple(stream[16 * n : 16 * n + 16].tolist()) for n in range(30))
    assert sorted(map(tuple, batch["input_ids"].tolist())) == expected


def test_domains_are_drawn_by_weight(tmp_path: Path) -> None:
    source = PackedSource(files(tmp_path, weights={"code": 0.8, "docs": 0.2}), length=8, seed=0, planned=4000)
    code = (source.next(4000)["input_ids"] < 150).float().mean(1) > 0.9
    share = float(code.float().mean())
    assert share == pytest.approx(0.8, abs=4 * (0.16 / 4000) ** 0.5)


def test_labels_are_the_next_tokens_of_the_same_document(tmp_path: Path) -> None:
    batch = PackedSource(files(tmp_path), length=20, seed=1).next(8)
    ids, labels, documents = batch["input_ids"], batch["labels_BT"], batch["document_ids"]
    inner = labels[:, :-1]
    learned = inner != IGNORED
    assert torch.equal(inner[learned], ids[:, 1:][learned])
    assert (documents[:, 1:][learned] == documents[:, :-1][learned]).all()
    assert (labels[ids == EOS] == IGNORED).all()
    assert learned.float().mean() > 0.8


def test_documents_and_positions_start_again_after_an_end() -> None:
    ids = np.array([5, 6, EOS, BOS, 7, EOS, BOS])
    documents = document_ids(ids, EOS, visible=7)
    assert documents.tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert positions(documents).tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert document_ids(np.array([5] * 6), EOS, visible=4).tolist() == [0, 0, 0, 0, 1, 1]


def test_the_last_window_is_padded_and_the_padding_not_learned(tmp_path: Path) -> None:
    source = PackedSource(files(tmp_path, weights={"code": 1, "docs": 0}), length=1000, seed=0)
    batch = source.next(1)
    assert (batch["labels_BT"][0, 479:] == IGNORED).all()
    assert batch["num_bytes"].tolist() == [pytest.approx(479 * 2.5)]


def test_the_batch_size_changes_no_sample(tmp_path: Path) -> None:
    found = files(tmp_path)
    one, many = PackedSource(found, length=16, seed=3), PackedSource(found, length=16, seed=3)
    rows = torch.cat([one.next(1)["input_ids"] for _ in range(60)])
    assert torch.equal(rows, torch.cat([many.next(20)["input_ids"] for _ in range(3)]))


def test_a_source_continues_where_its_state_stood(tmp_path: Path) -> None:
    found = files(tmp_path)
    source = PackedSource(found, length=16, seed=3)
    source.next(33)
    state = source.state_dict()
    expected = [source.next(7)["input_ids"] for _ in range(8)]
    resumed = PackedSource(found, length=16, seed=3)
    resumed.load_state_dict(state)
    assert all(torch.equal(batch, resumed.next(7)["input_ids"]) for batch in expected)


def test_seeds_decide_the_order(tmp_path: Path) -> None:
    found = files(tmp_path)
    first, again, other = (PackedSource(found, length=16, seed=s).next(10)["input_ids"] for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_curriculum_orders_the_whole_run(tmp_path: Path) -> None:
    method = Staged(Staged.Config(domains=["docs", "code"], keep_share=0.0))
    source = PackedSource(files(tmp_path), length=8, seed=0, planned=60, curriculum=method)
    docs = (source.next(60)["input_ids"] >= 150).float().mean(1) > 0.4
    last = int(docs.nonzero().max())
    assert docs[: last + 1].float().mean() > 0.95


def test_a_length_ramp_cuts_windows_at_first(tmp_path: Path) -> None:
    method = LengthRamp(LengthRamp.Config(start=4, share=0.5))
    source = PackedSource(files(tmp_path), length=16, seed=0, planned=40, curriculum=method)
    longest = [int(source.next(1)["position_ids"].max()) + 1 for _ in range(40)]
    assert max(longest[:3]) <= 5
    assert max(longest[20:]) > 8


def test_what_cannot_be_packed_is_refused(tmp_path: Path) -> None:
    found = files(tmp_path)
    with pytest.raises(ConfigError, match="sequence_length=0"):
        PackedSource(found, length=0, seed=0)
    with pytest.raises(DataError, match="no documents in the split 'test'"):
        PackedSource(found, length=8, seed=0, split="test")
    with pytest.raises(ConfigError, match="no weight"):
        PackedSource(files(tmp_path, weights={"web": 1.0}), length=8, seed=0)


def test_a_domain_of_any_name_has_a_file(tmp_path: Path) -> None:
    writer = TokenWriter(tmp_path, vocab_size=300, bos_id=BOS, eos_id=EOS)
    names = ["wiki/en", "../up", "\u4e2d\u6587", "a" * 400, "a" * 400 + "b", "x:y*?"]
    for place, name in enumerate(names):
        writer.add("train", name, [10 + place] * 5, num_bytes=5)
    writer.finish(Split.train)
    writer.write_index(dict.fromkeys(names, 1 / len(names)))
    read = TokenFiles(tmp_path)
    for place, name in enumerate(names):
        assert read.tokens("train", name).tolist() == [BOS, *[10 + place] * 5, EOS]
    assert {file.parent for file in tmp_path.rglob("*.bin")} == {tmp_path}


def test_more_domains_than_open_files(tmp_path: Path) -> None:
    writer = TokenWriter(tmp_path, vocab_size=300, bos_id=BOS, eos_id=EOS)
    for turn in range(2):
        for domain in range(300):
            writer.add("train", str(domain), [turn], num_bytes=1)
            assert len(writer.files) <= 128
    ids = writer.finish(Split.train)
    assert all(array.tolist() == [BOS, 0, EOS, BOS, 1, EOS] for array in ids.values())


def test_shares_of_a_mixture_are_of_tokens_and_padding_is_none(tmp_path: Path) -> None:
    """`short` fills an eighth of its only window, `long` all of its own."""
    writer = TokenWriter(tmp_path, vocab_size=300, bos_id=None, eos_id=EOS)
    writer.add("train", "long", [10] * 6_400, num_bytes=6_400)
    writer.add("train", "short", [20] * 8, num_bytes=8)
    writer.finish(Split.train)
    writer.write_index({"long": 0.5, "short": 0.5})
    source = PackedSource(TokenFiles(tmp_path), length=64, seed=0, planned=4_000)
    batch = source.next(4_000)
    learned = batch["labels_BT"] != IGNORED
    short = int((learned & (batch["input_ids"] == 20)).sum())
    long = int((learned & (batch["input_ids"] == 10)).sum())
    assert short / (short + long) == pytest.approx(0.5, abs=0.03)
    assert int(batch["num_tokens"].sum()) == short + long
    assert float(batch["num_bytes"].sum()) / 4_000 == pytest.approx(source.bytes_per_window(), rel=0.05)


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("objective", [None, "prefix_language_modeling"])
def test_each_process_builds_its_own_rows_and_together_they_are_the_batch(
    objective: str | None, processes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, rows = files(tmp_path), language_modeling_rows
    if objective is not None:
        method = registry().get("objective", objective)
        rows = rows_of(method(method.Config()), encoder=False, prefix=True, sentinels=np.arange(290, 300))
    ramp = LengthRamp(LengthRamp.Config())
    whole, *shared = (
        PackedSource(found, length=16, seed=3, planned=40, curriculum=ramp, rows=rows)
        for _ in range(processes + 1)
    )
    built: list[int] = []
    window = PackedSource.window
    monkeypatch.setattr(
        PackedSource,
        "window",
        lambda self, n, *, visible: built.append(n) or window(self, n, visible=visible),
    )
    for _ in range(7):  # into the next round
        batch, share = whole.next(8), 8 // processes
        built.clear()
        parts = [
            next_rows(source, 8, slice(rank * share, (rank + 1) * share))
            for rank, source in enumerate(shared)
        ]
        assert len(built) == 8, "no window is built twice"
        for name, value in batch.items():
            if name in COUNTS:
                assert all(torch.equal(part[name], value) for part in parts)
            else:
                assert torch.equal(torch.cat([part[name] for part in parts]), value)
    assert all(source.state_dict() == whole.state_dict() for source in shared)


def test_a_source_that_builds_all_rows_is_cut_and_counted_as_a_whole() -> None:
    class Plain:
        num_samples = None

        def next(self, size: int) -> dict[str, torch.Tensor]:
            mask = torch.ones(size, 4)
            mask[0, 2:] = 0
            return {"input_ids": torch.arange(4 * size).reshape(size, 4), "attention_mask": mask}

        def state_dict(self) -> dict[str, int]:
            return {}

        def load_state_dict(self, state: dict[str, int]) -> None:
            pass

    part = next_rows(Plain(), 4, slice(2, 4))
    assert part["input_ids"].tolist() == [[8, 9, 10, 11], [12, 13, 14, 15]]
    assert int(part["num_tokens"].sum()) == 14


NAMES = [
    *("wiki/en", "Wiki/en", "wiki%2Fen", "..", ".", "-", "a b%2Fc", "n\n"),
    *("\u6587" * 300, "\u6587" * 301, "x" * 500),
]


def test_any_name_of_a_domain_is_a_file_of_its_own(tmp_path: Path) -> None:
    writer = TokenWriter(tmp_path, vocab_size=300, bos_id=BOS, eos_id=EOS)
    for place, name in enumerate(NAMES):
        writer.add("train", name, [10 + place], num_bytes=1)
    writer.finish(Split.train)
    writer.write_index(dict.fromkeys(NAMES, 1 / len(NAMES)))
    found = TokenFiles(tmp_path)
    assert found.domains("train") == sorted(NAMES)
    for place, name in enumerate(NAMES):
        assert found.tokens("train", name).tolist() == [BOS, 10 + place, EOS]
    files_made = [path.name for path in tmp_path.iterdir()]
    assert len({name.lower() for name in files_made}) == len(files_made), "some file systems ignore case"
