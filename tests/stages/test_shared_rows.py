"""Processes that share a batch of conversations or pairs build a part each, and together the whole."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_models as tiny
import torch

from harness.axes.instruction import Conversation, Role, Turn
from harness.axes.reward import Preference
from harness.data.template import Template
from harness.data.tokenization import load_tokenizer
from harness.registry.known import registry
from harness.stages import _preferences
from harness.stages._conversations import ConversationSource, encode_all
from harness.stages._preferences import PreferenceSource
from harness.training.contract import COUNTS, next_rows

LENGTH = 40


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    directory = tmp_path_factory.mktemp("tokenizer")
    tiny.byte_tokenizer(directory)
    return Template(load_tokenizer(directory))


def conversations(template: Template, packs: bool) -> ConversationSource:
    given = [
        Conversation(
            id=str(i),
            turns=(Turn(role=Role.user, text=f"Q{i}"), Turn(role=Role.assistant, text="a" * (1 + i % 9))),
            source="s",
        )
        for i in range(30)
    ]
    return ConversationSource(
        encode_all(given, template, length=LENGTH).by_id,
        lambda rng: [given[i] for i in rng.permutation(len(given))],
        seed=0,
        length=LENGTH,
        packs=packs,
        pad_id=0,
        bytes_per_token=1.0,
        document_ids=True,
    )


def pairs(template: Template, method: str) -> PreferenceSource:
    given = [
        Preference(id=str(i), prompt=f"Q{i}", chosen="yes" * (1 + i % 5), rejected="no" * (1 + i % 3))
        for i in range(30)
    ]
    chosen: Any = registry().get("alignment", method)()
    return PreferenceSource(given, chosen, template, seed=0, length=LENGTH, pad_id=0)


def source(template: Template, kind: str) -> Any:
    if kind in ("packed", "unpacked"):
        return conversations(template, packs=kind == "packed")
    return pairs(template, kind)


@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("kind", ["packed", "unpacked", "dpo", "kto"])
def test_each_process_builds_its_own_rows(
    template: Template, kind: str, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, *shared = (source(template, kind) for _ in range(processes + 1))
    built: list[int] = []
    collate, pad = ConversationSource._collate, _preferences.pad_rows

    def counted(function: Any, rows_at: int) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            built.append(len(args[rows_at]))
            return function(*args, **options)

        return call

    monkeypatch.setattr(ConversationSource, "_collate", counted(collate, 1))
    monkeypatch.setattr(_preferences, "pad_rows", counted(pad, 0))
    for _ in range(9):  # into the next epoch
        batch, share = whole.next(8), 8 // processes
        built.clear()
        parts = [
            next_rows(each, 8, slice(rank * share, (rank + 1) * share)) for rank, each in enumerate(shared)
        ]
        assert set(built) == {share}, "a process builds rows of another"
        for name, value in batch.items():
            if name in COUNTS:
                assert all(torch.equal(part[name], value) for part in parts)
            else:
                assert torch.equal(torch.cat([part[name] for part in parts]), value)
    assert all(each.state_dict() == whole.state_dict() for each in shared)


def test_padding_of_packed_conversations_is_no_token(template: Template) -> None:
    batch = conversations(template, packs=True).next(4)
    real = [
        int((documents < documents[-1]).sum()) if pad else len(documents) for documents, pad in _rows(batch)
    ]
    assert batch["num_tokens"].tolist() == real
    assert sum(real) < batch["input_ids"].numel()


def _rows(batch: dict[str, torch.Tensor]) -> list[tuple[torch.Tensor, bool]]:
    """Documents of each row, and whether the last of them is padding."""
    return [
        (documents, bool((ids[documents == documents[-1]] == 0).all()))
        for ids, documents in zip(batch["input_ids"], batch["document_ids"], strict=True)
    ]
