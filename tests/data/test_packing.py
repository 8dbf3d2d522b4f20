"""Best-fit packing: whole documents, no more windows than first fit, every token predicted once."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from harness.axes.corpus import Split
from harness.data.packed_source import PackedSource
from harness.data.packing import BestFit, Concatenated, Packing, best_fit
from harness.data.template import IGNORED
from harness.data.token_files import TokenFiles, TokenWriter

EOS = 2


def documents(rng: np.random.Generator, sizes: list[int]) -> list[np.ndarray]:
    return [np.append(rng.integers(10, 1000, size=size - 1), EOS) for size in sizes]


@pytest.mark.parametrize("seed", range(5))
def test_the_bins_are_those_of_looking_at_every_bin_for_the_fullest_that_has_room(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes, capacity = rng.integers(1, 60, size=300).tolist(), 64
    packed = best_fit(sizes, capacity=capacity)
    assert sorted(index for one in packed for index in one) == list(range(300))
    loads: list[int] = []
    for size in sorted(sizes, reverse=True):
        fitting = [load for load in loads if load + size <= capacity]
        if fitting:
            loads[loads.index(max(fitting))] += size
        else:
            loads.append(size)
    assert sorted(sum(sizes[i] for i in one) for one in packed) == sorted(loads)


def test_items_by_hand() -> None:
    # 7 opens a bin, 6 another, 3 goes to the 7 (room 3), 4 to the 6 (room 4), 2 opens a third, 1 joins it.
    assert best_fit([4, 7, 1, 3, 6, 2], capacity=10) == [[1, 3], [4, 0], [5, 2]]


@pytest.mark.parametrize("length", [1, 7, 16, 64])
def test_every_token_is_predicted_once_from_its_own_document(length: int) -> None:
    rng = np.random.default_rng(0)
    texts = documents(rng, rng.integers(2, 90, size=80).tolist())
    ids = np.concatenate(texts)
    windows = BestFit(ids, length, eos_id=EOS)
    pairs = sorted((int(a), int(b)) for text in texts for a, b in itertools.pairwise(text))
    found = []
    for index in range(len(windows)):
        own = windows.ids(index)
        assert 1 < len(own) <= length + 1
        found += [(int(a), int(b)) for a, b in itertools.pairwise(own) if a != EOS]
    assert sorted(found) == pairs
    short = [text for text in texts if len(text) <= length + 1]
    joined = [windows.ids(index).tobytes() for index in range(len(windows))]
    assert all(any(text.tobytes() in window for window in joined) for text in short)


def test_a_real_mix_of_lengths_needs_little_padding_and_cuts_nothing_that_fits() -> None:
    rng = np.random.default_rng(1)
    sizes = np.minimum(3000, rng.lognormal(5, 1, size=4000).astype(int) + 2).tolist()
    ids = np.concatenate(documents(rng, sizes))
    packed, plain = BestFit(ids, 512, eos_id=EOS), Concatenated(ids, 512)
    assert len(packed) <= 1.02 * len(plain)


def source(tmp_path: Path, packing: Packing) -> PackedSource:
    writer = TokenWriter(tmp_path, vocab_size=1000, bos_id=None, eos_id=EOS)
    rng = np.random.default_rng(2)
    for text in documents(rng, [5, 9, 12, 30, 3, 3, 40]):
        writer.add("train", "web", text[:-1].tolist(), num_bytes=len(text))
    writer.finish(Split.train)
    writer.write_index({"web": 1.0})
    return PackedSource(TokenFiles(tmp_path), length=16, seed=0, packing=packing)


def test_batches_keep_documents_apart_and_count_no_padding(tmp_path: Path) -> None:
    packed = source(tmp_path, Packing.best_fit)
    batch = packed.next(packed.num_samples)
    # Lines of 5, 9, 12, 30, 3, 3 and 40 ids hold one token less to predict each.
    assert int((batch["labels_BT"] != IGNORED).sum()) == 102 - 7
    for ids, owner, label in zip(
        batch["input_ids"].tolist(), batch["document_ids"].tolist(), batch["labels_BT"].tolist(), strict=True
    ):
        for at, target in enumerate(label[:-1]):
            if target != IGNORED:
                assert ids[at + 1] == target
                assert owner[at + 1] == owner[at]
    assert packed.padding_share() == pytest.approx(
        1 - int(batch["num_tokens"].sum()) / (packed.num_samples * 16)
    )
    assert packed.padding_share() > 0
    json.dumps(packed.padding_share())
