"""Synthetic tasks on long contexts: where answers stand, how long prompts are, what counts as right."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest
from harness_plugins.evaluator._long_tasks import TASKS, Exercise, noise
from harness_plugins.evaluator.long_context import LongContext
from harness_plugins.evaluator.ruler import Ruler

from harness.axes.corpus import Document, Split
from harness.conformance._language import subject
from harness.data.tokenization import load_tokenizer, save_tokenizer
from harness.errors import ConfigError, IncompatibleError
from harness.registry.known import registry

TOKENIZERS = ("byte_bpe", "wordpiece", "sentencepiece_unigram", "character")


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Pages of the language's reference, the longest first, without what is no word: paths, rulers."""
    pages = sorted(topics.values(), key=len, reverse=True)[:6]
    return [" ".join(word for word in page.split() if len(word) <= 14) for page in pages]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> dict[str, Any]:
    found = {}
    for name in TOKENIZERS:
        kind: Any = registry().get("tokenizer", name)
        folder = tmp_path_factory.mktemp(name)
        save_tokenizer(kind(kind.Config(vocab_size=500)).train(iter(texts)), folder)
        found[name] = load_tokenizer(folder)
    return found


def reading(texts: list[str], tokenizer: Any) -> Any:
    """A subject whose test documents are these texts."""

    def documents(split: str) -> list[Document]:
        return [
            Document(id=str(place), text=text, domain="docs", split=Split(split))
            for place, text in enumerate(texts)
        ]

    return subject(tokenizer=tokenizer, documents=documents)


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("task", TASKS)
def test_a_prompt_is_as_long_as_asked_to_a_word_and_its_answer_stands_at_its_depth(
    task: str, name: str, texts: list[str], tokenizers: dict[str, Any]
) -> None:
    tokenizer = tokenizers[name]
    given, evaluator = reading(texts, tokenizer), Ruler()
    room = 900 - evaluator.config.max_new_tokens
    for depth in (0.0, 0.3, 1.0):
        exercise = TASKS[task](random.Random(f"{task}/{depth}"), texts)
        ids = evaluator.fitted(given, exercise, length=900, depth=depth)
        assert room - 16 < len(ids) <= room
        if exercise.deep is None:
            continue
        context, planted = exercise.context(80, words=2, depth=depth), exercise.planted[exercise.deep]
        before, _, after = context.partition(planted)
        assert abs(len(before) - depth * len(before + after)) <= max(
            len(exercise.filler(i)) for i in range(80)
        )
        found = len(tokenizer.encode(before)) / len(tokenizer.encode(context))
        assert abs(found - depth) < 0.06


@pytest.mark.parametrize("task", ["single_needle", "several_keys", "several_values", "question_answering"])
def test_an_answer_stands_in_one_place(task: str, texts: list[str]) -> None:
    for seed in range(20):
        exercise = TASKS[task](random.Random(seed), texts)
        context = exercise.context(60, words=3, depth=0.5)
        asked = re.search(r'follows "(.*?)" in', exercise.question)
        if asked is not None:
            assert context.count(asked[1]) == 1
            assert context.partition(asked[1])[2].split()[0].strip(".,;:()[]\"'`*") == exercise.answers[0]
            assert len(exercise.answers[0]) >= 5
        else:
            assert all(context.count(answer) == 1 for answer in exercise.answers)
            assert len(set(exercise.answers)) == len(exercise.answers)


def test_a_chain_hands_one_value_on_through_different_names(texts: list[str]) -> None:
    for seed in range(20):
        exercise = TASKS["variable_tracking"](random.Random(seed), texts)
        context = exercise.context(30, depth=0.0)
        number = re.search(r"value (\d+)\?", exercise.question)
        assert number is not None
        values: dict[str, str] = {}
        for name, value in re.findall(r"VAR (\w+) = (?:VAR )?(\w+)\.", context):
            values[name] = values.get(value, value)
        assert [name for name, value in values.items() if value == number[1]] == list(exercise.answers)
        assert len(set(exercise.answers)) == 4


@pytest.mark.parametrize("count", [12, 25, 57, 300])
def test_common_words_are_the_most_frequent_in_a_list_of_any_length(count: int, texts: list[str]) -> None:
    for seed in range(10):
        exercise = TASKS["common_words"](random.Random(seed), texts)
        counts = Counter(exercise.context(count, depth=0.0).removeprefix("A list of words: ").split())
        assert {word for word, _ in counts.most_common(3)} == set(exercise.answers)
        assert min(counts[word] for word in exercise.answers) > counts.most_common(4)[3][1]
    assert count != 57 or set(counts.values()) == {10, 1}


def test_only_whole_words_are_right_answers() -> None:
    exercise = Exercise(planted=[], question="", answers=["12345", "read"], filler=noise)
    assert exercise.score("12345, read.") == 1
    assert exercise.score("It is 12345 and reading") == 0.5
    assert exercise.score("912345 already") == 0


def test_tasks_that_ask_for_several_places_are_not_reported_by_depth(
    monkeypatch: pytest.MonkeyPatch, texts: list[str], tokenizers: dict[str, Any]
) -> None:
    import harness_plugins.evaluator.ruler as ruler

    monkeypatch.setattr(ruler, "greedy_tokens", lambda given, prompts, **_: [[] for _ in prompts])
    config = Ruler.Config(lengths=[400], num_items=1)
    given = reading(texts, tokenizers["byte_bpe"])
    for task in TASKS:
        names = {metric.metric for metric in Ruler(config).evaluate(task, given).metrics}
        assert ("score.depth=0.5" in names) == (TASKS[task](random.Random(0), texts).deep is not None)


def test_lengths_that_hold_nothing_are_refused(texts: list[str], tokenizers: dict[str, Any]) -> None:
    given = reading(texts, tokenizers["character"])
    exercise = TASKS["several_keys"](random.Random(0), texts)
    with pytest.raises(ConfigError, match="64 tokens hold no context beside a question"):
        Ruler().fitted(given, exercise, length=64, depth=0.0)
    with pytest.raises(ConfigError, match="64 tokens do not hold a pass key"):
        LongContext().plant(given, "12345", 64, 0.0)


def test_texts_without_a_place_of_their_own_have_no_questions() -> None:
    alike = ["one two three four five six seven eight nine ten " * 20] * 3
    with pytest.raises(IncompatibleError, match="stand in one place only"):
        TASKS["question_answering"](random.Random(0), alike)


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("bos", [False, True])
def test_a_pass_key_and_its_answer_fill_the_length(
    name: str, bos: bool, texts: list[str], tokenizers: dict[str, Any], tmp_path: Path
) -> None:
    """With what the tokenizer puts before a text, as every prompt is read."""
    from tokenizers.processors import TemplateProcessing

    tokenizers[name].save_pretrained(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    if bos:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<|bos|> $A", pair="$A $B", special_tokens=[("<|bos|>", 1)]
        )
    given, evaluator = reading(texts, tokenizer), LongContext()
    for length in (200, 500):
        for depth in (0.0, 0.5, 1.0):
            prompt = evaluator.read(given, evaluator.plant(given, "12345", length, depth))
            whole = len(prompt) + len(evaluator.answer(given, "12345"))
            assert length - 24 < whole <= length
            assert (prompt[0] == tokenizer.bos_token_id) == bos
