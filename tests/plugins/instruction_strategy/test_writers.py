"""Strategies for which a model writes, with a writer whose words are known."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models as tiny
import torch
from harness_plugins.instruction_strategy import back_translation, complexity, diversity, self_instruct
from harness_plugins.instruction_strategy._evolution import eliminated
from torch import Tensor

from harness import ConfigError, Conversation, Prompt, Role, Turn, Writer, as_text
from harness.model.artifact import load_pretrained


class Scripted:
    """Writes what a function says."""

    def __init__(self, says: Any) -> None:
        self.says, self.asked = says, list[str]()

    def write(self, prompts: Sequence[Prompt], *, seed: int) -> list[str]:
        self.asked += [as_text(prompt) for prompt in prompts]
        return [self.says(as_text(prompt)) for prompt in prompts]

    def next_lines(self, texts: Sequence[str], *, seed: int) -> list[str]:
        return self.write(texts, seed=seed)

    def facts(self) -> dict[str, Any]:
        return {"requests": len(self.asked)}


def conversations(number: int = 12) -> list[Conversation]:
    return [
        Conversation(
            id=f"c{i}",
            turns=(
                Turn(role=Role.user, text=f"Describe the animal number {i} in your own words"),
                Turn(role=Role.assistant, text=f"It is animal {i} with {i} legs."),
            ),
            source="seed",
        )
        for i in range(number)
    ]


def made(module: Any, cls: str, monkeypatch: pytest.MonkeyPatch, says: Any, **options: Any) -> Any:
    kind = getattr(module, cls)
    strategy = kind(kind.Config(url="http://localhost:1/v1", endpoint_model="m", **options))
    writer = Scripted(says)
    monkeypatch.setattr(module, "writer_of", lambda config, models: writer)
    return strategy


def test_evolved_instructions_get_new_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    def says(request: str) -> str:
        if request.startswith("Rewrite"):
            return "1. " + request.rpartition("Instruction: ")[2] + " and name its colour"
        return f"Answer to <{request}>"

    strategy = made(complexity, "Complexity", monkeypatch, says, share=0.5, rounds=2)
    found = strategy.select(conversations(), np.random.default_rng(0))
    evolved = [c for c in found if "#" in c.id]
    assert len(found) == 12
    assert len(evolved) == 6
    for c in evolved:
        assert c.turns[0].text.endswith(" and name its colour and name its colour")
        assert c.turns[1].text == f"Answer to <{c.turns[0].text}>"
        assert c.id.partition("#")[0] in {f"c{i}" for i in range(12)}
    assert strategy.facts["written"]["evolved"] == 12


@pytest.mark.parametrize(
    ("before", "after", "answer", "reason"),
    [
        ("Name a fish", "name a FISH.", "A carp swims.", "nothing gained"),
        ("Name a fish", "Name a rare fish", "Sorry, I cannot.", "hard to answer"),
        ("Name a fish", "Name a rare fish", "it is . the", "empty answer"),
        ("Name a fish", "The rewritten prompt: name a rare fish", "A carp swims.", "copied from the request"),
        ("Name a fish", "Name a rare fish", "A carp swims.", ""),
    ],
)
def test_failed_evolutions_are_eliminated_as_the_paper_says(
    before: str, after: str, answer: str, reason: str
) -> None:
    assert eliminated(before, after, answer) == reason


def test_self_instruct_keeps_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    proposals = iter(
        [
            "1. Explain why the sea is salty to a child",
            "Explain why the sea is salty to a child please",
            "Draw a picture of a house in the woods",
            "Sing",
            "2. Write a short poem about an old bicycle",
            *(f"Describe the animal number {i} in your own words" for i in range(40)),
        ]
    )

    def says(request: str) -> str:
        return next(proposals) if request.startswith("Come up with a series") else "An answer of some words."

    strategy = made(
        self_instruct, "SelfInstruct", monkeypatch, says, number=3, max_requests=20, keep_seeds=False
    )
    found = strategy.select(conversations(), np.random.default_rng(0))
    assert [c.turns[0].text for c in found] == [
        "Explain why the sea is salty to a child",
        "Write a short poem about an old bicycle",
    ]
    facts = strategy.facts["written"]
    assert facts["left out: not for a language model"] == 1
    assert facts["left out: length"] == 1
    assert facts["left out: alike"] >= 2


def test_back_translation_keeps_what_is_rated_highly(monkeypatch: pytest.MonkeyPatch) -> None:
    def says(request: str) -> str:
        if request.startswith("Which"):
            return f"What is {request.rpartition('animal ')[2].split(' ')[0]}?"
        return "5" if " 3" in request or "What is 4" in request else "2 of 5"

    strategy = made(back_translation, "BackTranslation", monkeypatch, says)
    found = strategy.select(conversations(5), np.random.default_rng(0))
    assert [c.turns[0].text for c in found] == ["What is 3?", "What is 4?"]
    assert [c.turns[1].text for c in found] == ["It is animal 3 with 3 legs.", "It is animal 4 with 4 legs."]
    assert strategy.facts["written"]["left out: rated low"] == 3


def test_topics_are_written_about_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    def says(request: str) -> str:
        topic = request.partition("topic ")[2].partition(".")[0]
        return f"Say something of {topic}" if topic else "Something."

    strategy = made(diversity, "Diversity", monkeypatch, says, share=1.0, topics=["law", "music", "sport"])
    found = strategy.select(conversations(6), np.random.default_rng(0))
    assert [c.turns[0].text for c in found] == [
        f"Say something of {topic}" for topic in ("law", "music", "sport") * 2
    ]


def test_a_writer_must_be_named() -> None:
    for kind in (self_instruct.SelfInstruct, back_translation.BackTranslation):
        (problem,) = kind.check(kind.Config(), None, None)
        assert "somebody must write" in str(problem)
    with pytest.raises(ConfigError, match="belong together"):
        diversity.Diversity.Config(topics=["law"])


def test_a_local_model_writes(tmp_path: Path) -> None:
    """A tiny random model: what it writes is worth nothing, but it is written, and differs by seed."""
    loaded = load_pretrained(str(tiny.pretrained(tmp_path / "hf")))
    writer = Writer(loaded.model, loaded.tokenizer, max_new_tokens=6)
    first, again, other = (writer.write(["Say hi", "Name a fish"], seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    assert writer.facts()["requests"] == 6
    assert 0 < writer.facts()["tokens"] <= 36


def test_a_list_is_continued_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A local model reads the text alone, without a chat's turns, and its line ends at the line's end."""
    loaded = load_pretrained(str(tiny.pretrained(tmp_path / "hf")))
    model: Any = loaded.model
    read = list[str]()

    def generate(*, input_ids: Tensor, stopping_criteria: Any, **_: Any) -> Tensor:
        read.extend(loaded.tokenizer.batch_decode(input_ids, skip_special_tokens=True))
        said = torch.tensor([loaded.tokenizer.encode(" sing\n", add_special_tokens=False)] * len(input_ids))
        out = torch.cat([input_ids, said], dim=1)
        assert not stopping_criteria[0](out[:, :-1], None).any()
        assert stopping_criteria[0](out, None).all()
        return out

    monkeypatch.setattr(model, "generate", generate)
    writer = Writer(model, loaded.tokenizer)
    assert writer.next_lines(["Tasks:\n1. Dance\n2."], seed=0) == ["sing"]
    assert read == ["Tasks:\n1. Dance\n2."]


def test_seeds_are_shown_as_instructions_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    strategy = made(
        self_instruct, "SelfInstruct", monkeypatch, lambda request: "Sing", number=1, max_requests=1
    )
    seeds = [
        replace(c, turns=(replace(c.turns[0], text=f"Sort\n these words {i}:\n\nb\n\na"), c.turns[1]))
        for i, c in enumerate(conversations(1))
    ]
    strategy.select(seeds, np.random.default_rng(0))
    assert self_instruct.writer_of(None, {}).asked == [
        "Come up with a series of tasks:\n1. Sort these words 0\n2."
    ]


def test_diversity_takes_time_in_proportion() -> None:
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(3000)]

    def asked(number: int) -> list[Conversation]:
        return [
            Conversation(
                id=str(i),
                turns=(Turn(role=Role.user, text=" ".join(rng.choice(words, 12))),),
                source="x",
            )
            for i in range(number)
        ]

    def seconds(number: int) -> float:
        given, began = asked(number), time.process_time()
        found = diversity.Diversity(diversity.Diversity.Config(share=0.5)).select(given, rng)
        assert len(found) == number // 2
        assert len({c.id for c in found}) == number // 2
        return time.process_time() - began

    assert seconds(8192) < 4 * seconds(4096), "twice as many take about twice as long, not four times"
