"""Sources of instructions: what each format means, by small cases and on the real files."""

import gzip
import json
import re
from collections import Counter
from pathlib import Path

import pytest
from harness_plugins.instruction.chat import Chat
from harness_plugins.instruction.flan import Flan
from harness_plugins.instruction.hh import Hh
from harness_plugins.instruction.messages import Messages
from harness_plugins.instruction.oasst import Oasst
from harness_plugins.instruction.self_instruct import SelfInstruct
from harness_plugins.instruction.sharegpt import ShareGpt
from harness_plugins.instruction.synthetic import Synthetic
from harness_plugins.instruction.task import Task

from harness import Conversation, DataError, Document, Instruction, Role, Split
from harness.registry.known import registry

READERS = ("alpaca", "dolly", "flan", "hh", "oasst", "self_instruct", "sharegpt")


def texts(found: list[Conversation]) -> list[list[str]]:
    return [[turn.text for turn in conversation.turns] for conversation in found]


def sampled(name: str, directory: Path) -> list[Conversation]:
    method = registry().get("instruction", name)
    assert issubclass(method, Instruction)
    return list(method(method.trial(directory)).conversations((), 0))


def test_alpaca_joins_instruction_and_input(tmp_path: Path) -> None:
    assert texts(sampled("alpaca", tmp_path)) == [
        ["Name the three primary colors.", "Red, yellow and blue."],
        ["Translate to German.\n\nGood morning", "Guten Morgen"],
    ]


def test_dolly_takes_the_category_as_source(tmp_path: Path) -> None:
    found = sampled("dolly", tmp_path)
    assert texts(found)[0] == ["Who wrote it?\n\nAda wrote it.", "Ada."]
    assert [conversation.source for conversation in found] == ["closed_qa", "open_qa"]


def test_flan_p3_and_t0_are_read_alike(tmp_path: Path) -> None:
    found = sampled("flan", tmp_path)
    assert texts(found)[1:] == [["Sum up: It rained.", "Rain"], ["Answer: 1 + 1", "2"]]
    assert [conversation.source for conversation in found] == ["weather", "sum", "add"]


def test_sharegpt_starts_with_the_user_and_keeps_turns_apart(tmp_path: Path) -> None:
    assert texts(sampled("sharegpt", tmp_path)) == [
        ["Hi", "Hello, how can I help?", "Name a river.", "The Elbe."],
        ["Once more", "Here it is."],
    ]


def test_sharegpt_ends_before_two_turns_of_one_speaker(tmp_path: Path) -> None:
    turns = [("human", "a"), ("gpt", "b"), ("gpt", "c"), ("human", "d"), ("gpt", "e")]
    row = {"conversations": [{"from": f, "value": v} for f, v in turns]}
    (tmp_path / "c.json").write_text(json.dumps([row]))
    config = ShareGpt.Config(path=str(tmp_path / "c.json"))
    assert texts(list(ShareGpt(config).conversations((), 0))) == [["a", "b"]]


def test_self_instruct_gives_one_conversation_an_instance(tmp_path: Path) -> None:
    assert texts(sampled("self_instruct", tmp_path)) == [
        ["Greet the person.\n\nAda", "Hello, Ada!"],
        ["Greet the person.", "Hello!"],
        ["Task: Count to three.\nOutput:", "1 2 3"],
    ]


def test_oasst_follows_the_best_ranked_replies(tmp_path: Path) -> None:
    assert texts(sampled("oasst", tmp_path)) == [["A prime?", "7", "More?", "11"]]
    config = Oasst.Config(path=str(tmp_path / Oasst.sample_name), language="de")
    assert list(Oasst(config).conversations((), 0)) == []


def test_hh_is_the_chosen_dialogue(tmp_path: Path) -> None:
    assert texts(sampled("hh", tmp_path)) == [["Hi", "Hello!", "A joke?", "Later."]]


@pytest.mark.parametrize("name", READERS)
def test_the_wrong_format_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"foo": "bar"}\n')
    method = registry().get("instruction", name)
    with pytest.raises(DataError, match=r"rows\.jsonl, entry 0"):
        list(method(method.Config(path=str(path))).conversations((), 0))  # type: ignore[attr-defined,call-arg]


def test_chat_reads_messages_and_makes_several_turns(tmp_path: Path) -> None:
    path = tmp_path / "chat.jsonl"
    rows = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    path.write_text(json.dumps({"messages": [{"role": r, "content": t} for r, t in rows]}) + "\n")
    assert texts(list(Chat(Chat.Config(path=str(path))).conversations((), 0))) == [["a", "b", "c", "d"]]
    path.write_text('{"messages": [{"content": "a"}]}\n')
    with pytest.raises(DataError, match="entry 0, message 0: needs messages"):
        list(Chat(Chat.Config(path=str(path))).conversations((), 0))
    made = list(Chat(Chat.Config(num_conversations=30)).conversations((), 0))
    assert {len(c.turns) for c in made if c.split is Split.train} == {4, 6}


def test_inverted_tasks_ask_for_the_instruction() -> None:
    found = list(Task(Task.Config(num_items=40, inverted_share=0.25, skills=["copy"])).conversations((), 0))
    train = [c for c in found if c.split is Split.train]
    inverted = [c for c in train if c.source == "copy_inverted"]
    assert len(inverted) == len(train) / 4
    for conversation in inverted:
        prompt, answer = (turn.text for turn in conversation.turns)
        assert prompt.startswith("Ask for: ")
        assert answer == f"Copy: {prompt.removeprefix('Ask for: ')}"


def test_documentation_becomes_tasks() -> None:
    text = "os.path.join\nJoin two or more parts.\n\nInserting '/' as needed.\n\nos.sep\nnot a sentence\n"
    written = [
        ("docs/os", text, Split.train),
        ("docs/re", "re.match\nMatch at the start.\n", Split.test),
        ("docs/rx", "re.match\nMatch at the top.\n", Split.train),
    ]
    documents = [Document(id=i, text=t, domain="docs", split=s) for i, t, s in written]
    method = Task(Task.Config(num_items=1, skills=["say"], described_items=10))
    found = [c for c in method.conversations(documents, 0) if c.source == "describe"]
    joined, matched = texts(found)
    assert joined == ["Describe: os.path.join", "Join two or more parts."]
    assert matched == ["Describe: re.match", "Match at the start."]
    assert [c.split for c in found] == [Split.train, Split.test]


def test_every_family_of_tasks_is_trained_on_alike() -> None:
    found = list(Task(Task.Config(num_items=600)).conversations((), 0))
    counts = Counter(c.source for c in found if c.split is Split.train)
    assert set(counts.values()) == {100}
    assert len(counts) == 6
    held_out = [c.turns[0].text for c in found if c.split is Split.test]
    assert len(held_out) == len(set(held_out))


def test_synthetic_keeps_only_what_differs() -> None:
    from harness import rouge_l

    method = Synthetic(Synthetic.Config(num_proposals=300))
    found = [c for c in method.conversations((), 0) if c.split is Split.train]
    prompts = [c.turns[0].text.lower().split() for c in found]
    assert 10 < len(found) < 300
    pairs = [(a, b) for i, a in enumerate(prompts) for b in prompts[:i]]
    assert max(rouge_l(a, b) for a, b in pairs) < 0.7


def test_a_limit_and_a_split_hold(tmp_path: Path) -> None:
    rows = "".join(json.dumps({"prompt": f"p{n}", "completion": "c"}) + "\n" for n in range(400))
    (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress(rows.encode()))
    config = Flan.Config(path=str(tmp_path), test_share=0.25, max_conversations=300)
    found = list(Flan(config).conversations((), 0))
    assert len(found) == 300
    assert sum(c.split is Split.test for c in found) == pytest.approx(75, abs=30)


@pytest.mark.shared
def test_real_files_are_read(shared_data: Path) -> None:
    seeds = list(
        SelfInstruct(
            SelfInstruct.Config(path=str(shared_data / "self_instruct_seed_tasks.jsonl"))
        ).conversations((), 0)
    )
    assert len(seeds) >= 175
    tasks = list(Flan(Flan.Config(path=str(shared_data / "t0_tasks.jsonl.gz"))).conversations((), 0))
    assert len(tasks) > 11_000
    assert len({c.source for c in tasks}) > 250
    dialogues = list(Hh(Hh.Config(path=str(shared_data / "hh_harmless_test.jsonl.gz"))).conversations((), 0))
    assert len(dialogues) > 2_200
    assert max(len(c.turns) for c in dialogues) > 6
    for conversation in (*seeds, *tasks, *dialogues):
        assert conversation.turns[-1].role is Role.assistant
        assert not re.search(r"\n\n(Human|Assistant):", conversation.turns[-1].text)


def test_what_endpoints_write_beside_the_answer(tmp_path: Path) -> None:
    """A tool that returns nothing stays a turn, reasoning is counted, a call without a shape is refused."""
    call = {"id": "c", "type": "function", "function": {"name": "save", "arguments": "{}"}}
    asked = [
        {"role": "user", "content": "Save it."},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "", "tool_call_id": "c"},
        {"role": "assistant", "content": "Saved.", "reasoning_content": "It worked."},
    ]
    path = tmp_path / "chat.jsonl"
    path.write_text(json.dumps({"messages": asked}) + "\n")
    reader = Messages(Messages.Config(path=str(path)))
    assert texts(list(reader.conversations((), 0))) == [["Save it.", "", "", "Saved."]]
    assert reader.left_out == {"whose reasoning beside the answer is not learned": 1}
    asked[1]["tool_calls"] = ["save()"]
    path.write_text(json.dumps({"messages": asked}) + "\n")
    with pytest.raises(DataError, match="entry 0, message 1: tool_calls must be a list"):
        list(Messages(Messages.Config(path=str(path))).conversations((), 0))
