"""Bits per byte of right answers against transformers' own loss over the whole conversation."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from harness_plugins.evaluator.answers import Answers

from harness.axes.evaluator import Subject
from harness.conformance._language import model, subject
from harness.data.skills import Item, skill_items
from harness.errors import ConfigError, DataError

ITEMS = list(skill_items("instructions", "test", seed=0, n=4))


def measured(given: Subject, **options: object) -> dict[str, float]:
    found = Answers(Answers.Config(max_prompts=4, **options)).evaluate("answers", given)  # type: ignore[arg-type]
    assert len(found.samples) == 4
    return {metric.metric: metric.value for metric in found.metrics}


def nats(given: Subject, context: str, answer: str) -> tuple[float, int]:
    """What transformers' loss says of an answer after a text, and its tokens."""
    before, after = (given.tokenizer.encode(part, add_special_tokens=False) for part in (context, answer))
    ids = torch.tensor([[*before, *after]])
    labels = ids.clone()
    labels[:, : len(before)] = -100
    with torch.no_grad():
        return float(given.model(ids, labels=labels).loss) * len(after), len(after)


def test_a_chat_model_pays_for_the_answer_and_its_end_within_its_template() -> None:
    given = replace(subject(model=model(seed=3)), template="its own")
    whole = [nats(given, f"<|user|> {i.prompt}<|assistant|>", f" {i.answer}<|eos|>") for i in ITEMS]
    total = sum(loss for loss, _ in whole)
    size = sum(len(item.answer.encode()) for item in ITEMS)
    found = measured(given)
    assert found["answer_bits_per_byte"] == pytest.approx(total / math.log(2) / size, rel=1e-5)
    assert found["answer_loss"] == pytest.approx(total / sum(n for _, n in whole), rel=1e-5)


def test_a_base_model_reads_prompt_and_answer_as_one_text() -> None:
    given = subject(model=model(seed=3))
    total = sum(nats(given, item.prompt, f" {item.answer}")[0] for item in ITEMS)
    size = sum(len(item.answer.encode()) for item in ITEMS)
    assert measured(given)["answer_bits_per_byte"] == pytest.approx(total / math.log(2) / size, rel=1e-5)


def test_validation_prompts_are_others_than_those_reported() -> None:
    chosen = [
        {item.prompt for item in Answers(Answers.Config(split=split)).items()}
        for split in ("validation", "test")
    ]
    assert len(chosen[0]) == len(chosen[1]) == 128
    assert not chosen[0] & chosen[1]


def test_rows_of_a_file_say_their_split(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    rows = [{"prompt": f"p{i}", "answer": f"a{i}", "split": "validation"} for i in range(2)]
    rows += [{"prompt": "q", "answer": "b"}]
    file.write_text("\n".join(map(json.dumps, rows)))

    def read(split: str) -> list[Item]:
        return Answers(Answers.Config(prompts=str(file), split=split)).items()

    assert [item.prompt for item in read("validation")] == ["p0", "p1"]
    assert [item.answer for item in read("test")] == ["b"]


def test_what_cannot_be_scored_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text('{"prompt": "p"}')
    with pytest.raises(DataError, match=r"mine\.jsonl, row 1 has no answer"):
        Answers(Answers.Config(prompts=str(file))).items()
    with pytest.raises(DataError, match="no row of the validation split"):
        Answers(Answers.Config(prompts=str(file), split="validation")).items()
    with pytest.raises(ConfigError, match="must be validation or test"):
        Answers.Config(split="train")


def test_rows_of_a_file_without_splits_are_split_by_their_own_hash(tmp_path: Path) -> None:
    """A row keeps its side whatever rows are added, and every row has one."""
    rows = [{"question": f"What is {n} + {n}?", "answer": str(2 * n)} for n in range(400)]

    def asked(split: str, rows: list[dict[str, str]], share: float = 0.1) -> set[str]:
        file = tmp_path / "questions.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        config = Answers.Config(prompts=str(file), split=split, validation_share=share, max_prompts=400)
        return {item.prompt for item in Answers(config).items()}

    validation, test = (asked(split, rows) for split in ("validation", "test"))
    assert not validation & test
    assert len(validation) + len(test) == 400
    assert 22 <= len(validation) <= 58  # 40, and three standard deviations of a binomial count
    assert asked("validation", rows[::2]) == {row["question"] for row in rows[::2]} & validation
    assert len(asked("test", rows, share=0.0)) == 400
    assert asked("test", [row | {"split": "test"} for row in rows]) == test | validation
    with pytest.raises(ConfigError, match=r"validation_share=1\.0 must be in \[0, 1\)"):
        Answers.Config(validation_share=1.0)
