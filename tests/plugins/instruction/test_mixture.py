"""Mixtures of instruction sources: caps, shares, and what one source holds out of another."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from harness_plugins.instruction.mixture import Mixture

from harness import ConfigError, DataError, Split


def messages(folder: Path, name: str, questions: list[str]) -> dict[str, Any]:
    """Options of a reader of these questions."""
    rows = [
        [{"role": "user", "content": q}, {"role": "assistant", "content": f"{name} answers"}]
        for q in questions
    ]
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    return {"path": str(file), "validation_share": 0.0, "test_share": 0.0}


def mixed(folder: Path, **options: Any) -> tuple[Counter[str], Mixture]:
    """Training conversations by source, of 300 of messages and 100 of question and answer pairs."""
    pairs = folder / "pairs.jsonl"
    pairs.write_text("".join(json.dumps({"prompt": f"p{i}", "completion": "c"}) + "\n" for i in range(100)))
    method = Mixture(
        Mixture.Config(
            sources=options.pop("sources", ["messages", "flan"]),
            options={
                "messages": messages(folder, "chat", [f"m{i}" for i in range(300)]),
                "flan": {"path": str(pairs), "validation_share": 0.0, "test_share": 0.0},
            },
            **options,
        )
    )
    found = [c for c in method.conversations((), 0) if c.split is Split.train]
    assert len({c.id for c in found}) == len(found)
    return Counter(c.id.partition(":")[0] for c in found), method


def test_sources_are_concatenated_unless_capped(tmp_path: Path) -> None:
    assert mixed(tmp_path)[0] == {"messages": 300, "flan": 100}
    assert mixed(tmp_path, caps={"messages": 40})[0] == {"messages": 40, "flan": 100}


@pytest.mark.parametrize(
    ("shares", "numbers"),
    [
        ({"messages": 0.5, "flan": 0.5}, {"messages": 100, "flan": 100}),
        ({"messages": 0.9, "flan": 0.1}, {"messages": 300, "flan": 33}),
        ({"messages": 0.2, "flan": 0.8}, {"messages": 25, "flan": 100}),
    ],
)
def test_shares_hold_with_as_many_as_there_are(
    shares: dict[str, float], numbers: dict[str, int], tmp_path: Path
) -> None:
    assert mixed(tmp_path, shares=shares)[0] == numbers


def test_caps_come_before_shares(tmp_path: Path) -> None:
    found, _ = mixed(tmp_path, caps={"messages": 60}, shares={"messages": 0.75, "flan": 0.25})
    assert found == {"messages": 60, "flan": 20}


def test_what_one_source_holds_out_is_not_learned_from_another(tmp_path: Path) -> None:
    """Both ask the same hundred questions; one of them keeps a part for testing."""
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps({"prompt": f"q{i}", "completion": "c"}) + "\n" for i in range(100)))
    method = Mixture(
        Mixture.Config(
            sources=["messages", "flan"],
            options={
                "messages": messages(tmp_path, "chat", [f"q{i}" for i in range(100)]),
                "flan": {"path": str(pairs), "test_share": 0.3, "validation_share": 0.0},
            },
        )
    )
    found = list(method.conversations((), 0))
    tested = {c.turns[0].text for c in found if c.split is Split.test}
    assert 15 < len(tested) < 45
    assert not tested & {c.turns[0].text for c in found if c.split is Split.train}
    assert method.left_out == {"messages: held out by another source": len(tested)}


def test_a_source_that_gives_nothing_is_named_with_the_reason(tmp_path: Path) -> None:
    silent = messages(tmp_path, "chat", [" "])
    pairs = messages(tmp_path, "other", ["a", "b"])
    method = Mixture(
        Mixture.Config(
            sources=["messages", "chat"], options={"messages": silent, "chat": {"path": pairs["path"]}}
        )
    )
    with pytest.raises(DataError, match=r"'messages' gives no training conversation .*without an answer': 1"):
        list(method.conversations((), 0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sources": ["flan", "flan"]}, "each once"),
        ({"shares": {"messages": 1.0}}, "each source a positive share"),
        ({"shares": {"messages": 0.5, "flan": 0.6}}, "summing to 1"),
        ({"caps": {"alpaca": 3}}, "caps names"),
        ({"caps": {"flan": 0}}, "caps must be at least 1"),
    ],
)
def test_what_cannot_be_mixed_is_named(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        mixed(tmp_path, **options)
