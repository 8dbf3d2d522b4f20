"""Preferences from files: every format against what it says, and against TRL's own reading."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from harness_plugins.feedback.preferences import Preferences

from harness import DataError, OnError, Preference, Role, Split, as_turns
from harness.compose import compose
from harness.plan.problems import problems

ASKED = {"role": "user", "content": "Sky?"}
BLUE, GREEN = ({"role": "assistant", "content": text} for text in ("Blue.", "Green."))
HEAD = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
HI = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


def read(directory: Path, *rows: dict[str, Any], **options: Any) -> tuple[list[Preference], dict[str, int]]:
    file = directory / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    feedback = Preferences(Preferences.Config(path=str(file), validation_share=0.0, **options))
    return list(feedback.preferences((), 0)), feedback.left_out


def said(preference: Preference) -> tuple[list[tuple[str, str]], str, str]:
    turns = [(turn.role.value, turn.text) for turn in as_turns(preference.prompt)]
    return turns, preference.chosen, preference.rejected


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Sky?", "chosen": "Blue.", "rejected": "Green."},
        {"prompt": [ASKED], "chosen": [BLUE], "rejected": [GREEN]},
        {"chosen": [ASKED, BLUE], "rejected": [ASKED, GREEN]},
        {"prompt": "Sky?", "chosen": [ASKED, BLUE], "rejected": [ASKED, GREEN]},
        {
            "chosen": "\n\nHuman: Sky?\n\nAssistant: Blue.",
            "rejected": "\n\nHuman: Sky?\n\nAssistant: Green.",
        },
        {"input": {"messages": [ASKED]}, "preferred_output": [BLUE], "non_preferred_output": [GREEN]},
        {"instruction": "Sky?", "chosen_response": "Blue.", "rejected_response": "Green."},
        {
            "instruction": "Sky?",
            "completions": [
                {"response": "Green.", "overall_score": 2.0},
                {"response": "Blue.", "overall_score": 9.0},
                {"response": "Grey.", "overall_score": 5.0},
            ],
        },
    ],
    ids=["text", "messages", "implicit", "binarized", "hh", "openai", "argilla", "ultrafeedback"],
)
def test_every_format_of_pairs_says_the_same(tmp_path: Path, row: dict[str, Any]) -> None:
    (found,), _ = read(tmp_path, row)
    assert said(found) == ([("user", "Sky?")], "Blue.", "Green.")


def test_prompts_of_several_turns_stay_whole(tmp_path: Path) -> None:
    head = [{"role": "system", "content": "Be kind."}, *HI, ASKED]
    rows = [
        {"prompt": head, "chosen": [BLUE], "rejected": [GREEN]},
        {"chosen": [*head, BLUE], "rejected": [*head, GREEN]},
    ]
    found, _ = read(tmp_path, *rows)
    expected = [("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Sky?")]
    assert [said(preference)[0] for preference in found] == [expected, expected]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": HEAD, "chosen": [*HI[1:], ASKED, BLUE], "rejected": [*HI[1:], ASKED, GREEN]},
        {"prompt": HEAD, "chosen": [HI[0], *HI[1:], ASKED, BLUE], "rejected": [*HI, ASKED, GREEN]},
        {"prompt": HEAD, "completion": [*HI[1:], ASKED, BLUE], "label": True},
        {"prompt": "Sky?", "chosen": [*HEAD, HI[1], ASKED, BLUE], "rejected": [*HEAD, HI[1], ASKED, GREEN]},
    ],
    ids=["continued", "without system", "label", "last question as text"],
)
def test_a_prompt_and_the_turns_after_it_are_one_conversation(tmp_path: Path, row: dict[str, Any]) -> None:
    """TRL writes the prompt and then the answer's messages; some files repeat the prompt in them."""
    (found,), _ = read(tmp_path, row)
    asked, chosen, _ = said(found)
    assert asked == [("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Sky?")]
    assert chosen == "Blue."


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": "Human: Hi\n\nAssistant: Yes", "rejected": "Human: Hi\n\nAssistant: No"},
        {"prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": " Yes", "rejected": " No"},
    ],
    ids=["no empty line first", "prompt in HH's form"],
)
def test_the_first_speaker_of_hh_is_heard(tmp_path: Path, row: dict[str, Any]) -> None:
    (found,), _ = read(tmp_path, row)
    assert said(found)[0] == [("user", "Hi")]
    assert found.chosen.strip() == "Yes"


def test_messages_are_read_as_instruction_data_reads_them(tmp_path: Path) -> None:
    """Parts, calls of tools beside a null, ShareGPT's names, one message in place of a list."""
    call = {"type": "function", "id": "c", "function": {"name": "look", "arguments": "{}"}}
    asked = [
        {"from": "human", "value": "Sky?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "470 nm"}]},
    ]
    (found,), _ = read(
        tmp_path, {"prompt": asked, "chosen": {"from": "gpt", "value": "Blue."}, "rejected": [GREEN]}
    )
    assert said(found) == ([("user", "Sky?"), ("assistant", ""), ("tool", "470 nm")], "Blue.", "Green.")
    assert as_turns(found.prompt)[1].tool_calls == (call,)


def test_scores_that_are_none_are_passed_over(tmp_path: Path) -> None:
    scores = [("Grey.", "N/A"), ("Blue.", 5), ("Green.", "3.5"), ("Red.", float("nan"))]
    answers = [{"response": text, "overall_score": score} for text, score in scores]
    (found,), _ = read(tmp_path, {"instruction": "Sky?", "completions": answers})
    assert (found.chosen, found.rejected) == ("Blue.", "Green.")


def test_labels_of_single_answers_are_kept(tmp_path: Path) -> None:
    rows = [
        {"prompt": "Sky?", "completion": "Blue.", "label": True},
        {"prompt": [ASKED], "completion": [GREEN], "label": False},
        {"messages": [*HI, ASKED, GREEN], "label": False},
        {
            "conversations": [{"from": "human", "value": "Sky?"}, {"from": "gpt", "value": "Blue."}],
            "kto_tag": 1,
        },
        {"messages": [ASKED], "label": True},
        {"prompt": [ASKED], "completion": [ASKED], "label": True},
    ]
    found, left_out = read(tmp_path, *rows)
    blue, green = ("Blue.", ""), ("", "Green.")
    assert [said(p)[1:] for p in found] == [blue, green, green, blue]
    assert [len(said(p)[0]) for p in found] == [1, 1, 3, 1]
    assert not any(p.paired for p in found)
    assert left_out == {"a dialogue does not end with an answer": 2}


def test_what_teaches_nothing_is_counted(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a", "chosen": "same", "rejected": " same"},
        {"prompt": "a", "chosen": "", "rejected": " "},
        {"instruction": "a", "completions": [{"response": "x", "score": 1}, {"response": "y", "score": 1}]},
        {"prompt": "a", "chosen": "good", "rejected": "bad"},
        {"chosen": [ASKED], "rejected": [ASKED]},
        {"chosen": [*HI, ASKED, BLUE], "rejected": [ASKED, GREEN]},
        {"prompt": "a", "chosen": None, "rejected": "bad"},
        {"prompt": "a", "completion": "x", "label": None},
    ]
    found, left_out = read(tmp_path, *rows)
    assert len(found) == 1
    assert left_out == {
        "the answers are equal": 1,
        "both answers are empty": 1,
        "no answer is better than another": 1,
        "a dialogue does not end with an answer": 1,
        "the dialogues differ before their last answers": 1,
        "nothing stands under 'chosen'": 1,
        "nothing stands under 'label'": 1,
    }


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": "a", "answer": "b"}, "entry 0: no preference: has .'answer', 'question'.*needs one of"),
        ({"chosen": "Blue.", "rejected": "Green."}, "a dialogue needs"),
        ({"prompt": "a", "completion": "b", "label": "good"}, "label must be true or false"),
    ],
)
def test_what_is_no_preference_is_named(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        read(tmp_path, row)


def test_parquet_and_a_split_of_ones_own(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow.parquet import write_table

    row = {"prompt": [ASKED], "chosen": [BLUE], "rejected": [GREEN]}
    write_table(pa.Table.from_pylist([row, row]), tmp_path / "train.parquet")
    write_table(pa.Table.from_pylist([row]), tmp_path / "held.parquet")
    config = Preferences.Config(
        path=str(tmp_path / "train.parquet"), validation_path=str(tmp_path / "held.parquet")
    )
    found = list(Preferences(config).preferences((), 0))
    assert [p.split for p in found] == [Split.train, Split.train, Split.validation]
    assert said(found[0]) == ([("user", "Sky?")], "Blue.", "Green.")


@pytest.mark.shared
def test_the_real_pairs_of_hh_are_those_of_trl(shared_data: Path) -> None:
    """TRL takes the common beginning of both messages as the prompt (`extract_prompt`)."""
    from trl.data_utils import extract_prompt

    file = shared_data / "hh_harmless_test.jsonl.gz"
    feedback = Preferences(Preferences.Config(path=str(file), validation_share=0.1))
    found = {p.id.split("/")[2]: p for p in feedback.preferences((), 0)}
    with gzip.open(file, "rt") as lines:
        rows = [json.loads(line) for line in lines]
    assert len(found) + sum(feedback.left_out.values()) == len(rows) == 2312
    assert 0.05 < sum(p.split is Split.validation for p in found.values()) / len(found) < 0.15
    for number in list(found)[:200]:
        sides = {}
        for side in ("chosen", "rejected"):
            parts = rows[int(number)][side].split("\n\nHuman: ")[1:]
            turns = []
            for part in parts:
                asked, _, answer = part.partition("\n\nAssistant:")
                turns += [{"role": "user", "content": asked.strip()}]
                turns += [{"role": "assistant", "content": answer.strip()}]
            sides[side] = turns
        theirs = extract_prompt(sides)
        turns, chosen, rejected = said(found[number])
        if any("\n\nAssistant:" in turn["content"] for side in sides.values() for turn in side):
            continue  # two answers in a row, which the simple splitting above does not tell apart
        assert turns == [(turn["role"], turn["content"]) for turn in theirs["prompt"]]
        assert (chosen, rejected) == (
            theirs["chosen"][-1]["content"],
            theirs["rejected"][-1]["content"],
        )
        assert as_turns(found[number].prompt)[-1].role is Role.user


SYSTEM = [("system", "Be kind."), ("user", "Sky?")]


@pytest.mark.parametrize(
    ("row", "asked"),
    [
        ({"system": "Be kind.", "prompt": "Sky?", "chosen": "Blue.", "rejected": "Green."}, SYSTEM),
        ({"system": "Be kind.", "question": "Sky?", "chosen": "Blue.", "rejected": "Green."}, SYSTEM),
        ({"input": "Sky?", "chosen": "Blue.", "rejected": "Green."}, SYSTEM[1:]),
        (
            {"instruction": "Answer.", "input": "Sky?", "chosen": "Blue.", "rejected": "Green."},
            [("user", "Answer.\n\nSky?")],
        ),
        ({"conversations": [ASKED], "chosen": BLUE, "rejected": GREEN}, SYSTEM[1:]),
        (
            {"chosen": json.dumps([ASKED, BLUE]), "rejected": json.dumps([ASKED, GREEN]), "question": "no"},
            SYSTEM[1:],
        ),
        (
            {
                "chosen": "\r\n\r\nHuman: Sky?\r\n\r\nAssistant: Blue.",
                "rejected": "\r\n\r\nHuman: Sky?\r\n\r\nAssistant: Green.",
            },
            SYSTEM[1:],
        ),
        (
            {
                "prompt": "Human: Sky?\n\nAssistant:",
                "chosen": "\n\nHuman: Sky?\n\nAssistant: Blue.",
                "rejected": "\n\nHuman: Sky?\n\nAssistant: Green.",
            },
            SYSTEM[1:],
        ),
        (
            {
                "instruction": "Sky?",
                "completions": [{"response": "Blue.", "score": 2}, {"response": "Green.", "score": 1}],
                "system": "Be kind.",
            },
            SYSTEM,
        ),
    ],
    ids=["system", "orca", "input", "alpaca", "sharegpt", "JSON", "CRLF", "whole", "ultrafeedback"],
)
def test_prompts_under_other_names_are_read(
    tmp_path: Path, row: dict[str, Any], asked: list[tuple[str, str]]
) -> None:
    (found,), _ = read(tmp_path, row)
    assert said(found) == (asked, "Blue.", "Green.")


@pytest.mark.parametrize(("label", "good"), [(1, True), (0.0, False), ("True", True), ("false", False)])
def test_labels_in_every_spelling(tmp_path: Path, label: object, good: bool) -> None:
    (found,), _ = read(tmp_path, {"prompt": "Sky?", "completion": "Blue.", "label": label})
    assert (found.chosen if good else found.rejected) == "Blue."


@pytest.mark.parametrize("label", [5, -1, "good", [True]])
def test_a_label_that_is_none_is_refused(tmp_path: Path, label: object) -> None:
    with pytest.raises(DataError, match="entry 0: label must be true or false"):
        read(tmp_path, {"prompt": "Sky?", "completion": "Blue.", "label": label})


def test_scores_of_two_scales_are_not_compared(tmp_path: Path) -> None:
    answers = [
        {"response": "Grey.", "overall_score": None, "fine-grained_score": 4.9},
        {"response": "Blue.", "overall_score": 4, "fine-grained_score": 4.5},
        {"response": "Green.", "overall_score": 2, "fine-grained_score": 2.5},
    ]
    (found,), _ = read(tmp_path, {"instruction": "Sky?", "completions": answers})
    assert (found.chosen, found.rejected) == ("Blue.", "Green.")


def test_numbers_are_texts_and_an_empty_prompt_and_an_image_are_counted(tmp_path: Path) -> None:
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
    rows: list[dict[str, Any]] = [
        {"prompt": 7, "chosen": 5, "rejected": 6.5},
        {"prompt": "", "chosen": "x", "rejected": "y"},
        {"prompt": [image], "chosen": [BLUE], "rejected": [GREEN]},
    ]
    (found,), left_out = read(tmp_path, *rows)
    assert (found.prompt, found.chosen, found.rejected) == ("7", "5", "6.5")
    assert left_out == {"the prompt is empty": 1, "it holds a part of type 'image_url'": 1}


def test_files_that_share_a_first_part_of_their_name_give_ids_of_their_own(tmp_path: Path) -> None:
    for name in ("web.v1", "web.v2"):
        (tmp_path / f"{name}.ndjson").write_text('{"prompt": "q", "chosen": "a", "rejected": "b"}\n')
    feedback = Preferences(Preferences.Config(path=str(tmp_path), validation_share=0.0))
    assert [p.id for p in feedback.preferences((), 0)] == ["path/web.v1/0/0", "path/web.v2/0/0"]


def test_entries_that_cannot_be_read_end_the_run_or_are_counted(tmp_path: Path) -> None:
    pair = json.dumps({"prompt": "p", "chosen": "good", "rejected": "bad"})
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(['{"prompt": ', pair, '{"prompt": "p"}', "3", pair]))

    def preferences(on_error: OnError) -> Preferences:
        config = Preferences.Config(path=str(file), validation_share=0.0, on_error=on_error)
        Preferences.check_files(config)
        return Preferences(config)

    with pytest.raises(DataError, match=r"pairs\.jsonl"):
        preferences(OnError.fail)
    feedback = preferences(OnError.skip)
    assert [p.chosen for p in feedback.preferences((), 0)] == ["good", "good"]
    ((reason, count),) = feedback.left_out.items()
    assert count == 3
    assert reason.startswith(f"that cannot be read, the first: {file}:1")


@pytest.mark.parametrize(
    ("learner", "fits"),
    [("alignment=dpo", False), ("alignment=kto", True), ("alignment=kto reward=pairwise", False)],
)
def test_labels_of_single_answers_are_planned_for_what_reads_them_alone(
    tmp_path: Path, learner: str, fits: bool
) -> None:
    file = tmp_path / "labels.jsonl"
    rows = [{"prompt": f"Q{i}", "completion": "Yes.", "label": i % 2 == 0} for i in range(4)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    chosen = ["feedback=preferences", f"feedback.path={file}", *learner.split()]
    stages = ["reward", "align"] if "reward" in learner else ["align"]
    cell = compose([*chosen, f"stages=[corpus,tokenizer,tokens,pretrain,{','.join(stages)}]"])
    found = [str(problem) for problem in problems(cell) if "label single answers" in str(problem)]
    assert bool(found) is not fits
    assert fits or "use alignment=kto, or entries with" in found[0]
