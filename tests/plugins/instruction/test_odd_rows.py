"""Rows as people have them: odd, but valid; and files that are broken, with the line at fault."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from harness import DataError, OnError
from harness.registry.known import registry

ASKED, SAID = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
ROW = json.dumps({"messages": [ASKED, SAID]})
ONE = [("user", "q"), ("assistant", "a")]
SYSTEM = ("system", "Be brief.")

Turns = list[list[tuple[str, str]]]


def read(name: str, path: Path, **options: Any) -> tuple[Turns, dict[str, int], list[str]]:
    """Turns of all conversations, what was left out, and ids."""
    method = registry().get("instruction", name)
    config = method.Config(path=str(path), validation_share=0.0, test_share=0.0, **options)  # type: ignore[call-arg]
    reader: Any = method(config)
    found = list(reader.conversations((), 0))
    return [[(t.role.value, t.text) for t in c.turns] for c in found], reader.left_out, [c.id for c in found]


def of_rows(name: str, directory: Path, *rows: dict[str, Any]) -> tuple[Turns, dict[str, int]]:
    file = directory / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read(name, file)[:2]


@pytest.mark.parametrize(
    "text",
    [
        f"\ufeff{ROW}\r\n\r\n{ROW}\r\n",
        f"{ROW}\n\n \n{ROW}",
        '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "id": 7}\n'
        * 2,
    ],
    ids=["BOM and CRLF", "empty lines", "numbers as ids"],
)
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.ndjson", "rows.json", "rows.ndjson.gz"])
def test_lines_are_read_whatever_ends_them_and_whatever_they_are_called(
    text: str, name: str, tmp_path: Path
) -> None:
    data = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert read("messages", tmp_path)[0] == [ONE, ONE], "in a folder"
    assert read("messages", tmp_path / name)[0] == [ONE, ONE]


def test_separators_of_unicode_inside_a_text_end_no_line(tmp_path: Path) -> None:
    said = "one\u2028two\u2029three\x85four"
    (tmp_path / "rows.jsonl").write_text(
        json.dumps({"messages": [ASKED, {**SAID, "content": said}]}, ensure_ascii=False) + "\n"
    )
    ((_, answer),) = read("messages", tmp_path)[0]
    assert answer == ("assistant", said)


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("rows.jsonl", f"{ROW}\n{ROW},\n", 2),
        ("rows.json", f"[\n{ROW},\n{ROW},\n]\n", 4),
        ("rows.json", f"{ROW}\n{ROW},\n{ROW}", 2),
    ],
)
def test_a_comma_too_many_is_called_so_with_its_line(name: str, text: str, line: int, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=rf"{name}:{line}: not JSON: a comma with nothing behind it"):
        read("messages", tmp_path)


def test_a_document_over_several_lines_is_one(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps([json.loads(ROW)] * 2, indent=1))
    assert read("messages", tmp_path)[0] == [ONE, ONE]
    (tmp_path / "rows.json").write_text(json.dumps(json.loads(ROW), indent=1))
    assert read("messages", tmp_path)[0] == [ONE]


def test_lines_called_json_are_not_read_whole(tmp_path: Path) -> None:
    """The second line is broken, and yet the first is given before anybody looks at it."""
    from harness import read_rows

    (tmp_path / "rows.json").write_text(f"{ROW}\n{{broken\n")
    assert next(read_rows(tmp_path / "rows.json")) == json.loads(ROW)


def test_files_that_share_a_first_part_of_their_name_have_ids_of_their_own(tmp_path: Path) -> None:
    for name in ("web.v1", "web.v2"):
        (tmp_path / f"{name}.jsonl").write_text(f"{ROW}\n")
    ids = read("messages", tmp_path)[2]
    assert ids == ["messages/web.v1/0", "messages/web.v2/0"]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": json.dumps([ASKED, SAID])},
        {"messages": [{"role": "User", "content": "q"}, {"role": "ASSISTANT", "content": "a"}]},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "bing", "value": "a"}]},
        {"prompt": "q", "completion": "a"},
        {"prompt": [ASKED], "completion": [SAID]},
        {
            "messages": [
                {"role": "user", "parts": [{"text": "q"}]},
                {"role": "model", "parts": [{"text": "a"}]},
            ]
        },
    ],
    ids=["JSON text", "capitals", "bing", "prompt and completion", "as messages", "parts"],
)
def test_messages_in_every_form_say_the_same(row: dict[str, Any], tmp_path: Path) -> None:
    assert of_rows("messages", tmp_path, row) == ([ONE], {})


def test_a_table_has_messages_prompts_of_text_and_prompts_of_messages(tmp_path: Path) -> None:
    for place, column in enumerate(({"messages": [[ASKED, SAID]]}, {"prompt": ["q"], "completion": ["a"]})):
        parquet.write_table(pa.table(column), tmp_path / f"{place}.parquet")
    parquet.write_table(pa.table({"prompt": [[ASKED]], "completion": [[SAID]]}), tmp_path / "2.parquet")
    assert read("messages", tmp_path)[0] == [ONE] * 3


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("messages", {"system": "Be brief.", "messages": [ASKED, SAID]}),
        ("sharegpt", {"system": "Be brief.", "conversations": [{"from": "human", "value": "q"}, SAID]}),
        ("alpaca", {"system": "Be brief.", "instruction": "q", "input": None, "output": "a"}),
    ],
)
def test_a_system_beside_the_messages_is_read(name: str, row: dict[str, Any], tmp_path: Path) -> None:
    assert of_rows(name, tmp_path, row) == ([[SYSTEM, *ONE]], {})


def test_a_history_is_read_before_the_instruction(tmp_path: Path) -> None:
    row = {"instruction": "q", "output": "a", "history": [["Hi", "Hello"]]}
    assert of_rows("alpaca", tmp_path, row) == ([[("user", "Hi"), ("assistant", "Hello"), *ONE]], {})
    with pytest.raises(DataError, match=r"entry 0: history must be a list of \[question, answer\]"):
        of_rows("alpaca", tmp_path, {**row, "history": ["Hi"]})


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("messages", [{"messages": None}, {"messages": []}, {"messages": [ASKED]}]),
        ("messages", [{"messages": [ASKED, {**SAID, "content": text}]} for text in (None, "", " ")]),
        ("alpaca", [{"instruction": "q", "output": text} for text in (None, "", " ")]),
        ("question_answer", [{"question": "q", "answer": None}, {"question": None, "answer": "a"}]),
        ("hh", [{"chosen": None}, {"chosen": "\n\nHuman: q\n\nAssistant:"}]),
        ("sharegpt", [{"conversations": None}, {"conversations": []}]),
    ],
)
def test_entries_without_an_answer_are_counted(name: str, rows: list[dict[str, Any]], tmp_path: Path) -> None:
    assert of_rows(name, tmp_path, *rows) == ([], {"without an answer": len(rows)})


def test_an_entry_with_an_image_is_left_out_and_counted(tmp_path: Path) -> None:
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
    rows = [{"messages": [image, SAID]}, {"messages": [ASKED, SAID]}]
    assert of_rows("messages", tmp_path, *rows) == ([ONE], {"that hold a part of type 'image_url'": 1})


def test_numbers_are_answers_too(tmp_path: Path) -> None:
    rows = [{"question": "6 * 7?", "answer": 42}, {"question": "1 / 2?", "answer": 0.5}]
    found, _ = of_rows("question_answer", tmp_path, *rows)
    assert [turns[1][1] for turns in found] == ["42", "0.5"]


@pytest.mark.parametrize("line", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\n\n"])
def test_hh_begins_with_or_without_an_empty_line(line: str, start: str, tmp_path: Path) -> None:
    said = f"{start}Human: q\n\nAssistant: a\n\nHuman: q\n\nAssistant: a".replace("\n", line)
    assert of_rows("hh", tmp_path, {"chosen": said, "rejected": ""}) == ([[*ONE, *ONE]], {})


def test_trees_may_be_numbered_and_lack_a_parent(tmp_path: Path) -> None:
    rows = [
        {"message_id": 1, "parent_id": None, "role": "prompter", "text": "q"},
        {"message_id": 2, "parent_id": 1, "role": "assistant", "text": "a"},
        {"message_id": 5, "parent_id": 4, "role": "assistant", "text": "of what was deleted"},
    ]
    assert of_rows("oasst", tmp_path, *rows) == ([ONE], {"whose parent is not in the file": 1})


def test_schemas_of_tools_keep_no_nulls_of_a_table_at_any_depth() -> None:
    from harness import plain_call

    schema = {"anyOf": [{"type": "string", "format": None}, {"type": "null"}], "enum": None}
    assert plain_call({"parameters": schema}) == {
        "parameters": {"anyOf": [{"type": "string"}, {"type": "null"}]}
    }


BROKEN = ['{"question": "q"', "[1]", '{"question": {"a": 1}, "answer": "a"}', '{"ask": "q"}']
"""Not JSON, no object, no text, no such key."""


@pytest.mark.parametrize("position", range(4))
def test_entries_that_cannot_be_read_end_the_run_or_are_counted(position: int, tmp_path: Path) -> None:
    """Wherever they stand, what is whole around them is read, and the first is named with its place."""
    whole = [json.dumps({"question": f"q{n}", "answer": f"a{n}"}) for n in range(4)]
    lines = [*whole[:position], *BROKEN, *whole[position:]]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"rows\.jsonl"):
        read("question_answer", file)
    found, left_out, _ = read("question_answer", file, on_error=OnError.skip)
    assert found == [[("user", f"q{n}"), ("assistant", f"a{n}")] for n in range(4)]
    ((reason, count),) = left_out.items()
    assert count == len(BROKEN)
    assert reason.startswith(f"that cannot be read, the first: {file}:{position + 1}:")


def test_a_file_whose_first_entries_are_damaged_is_planned_where_they_may_be(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join([*BROKEN, json.dumps({"question": "q", "answer": "a"})]))
    method: Any = registry().get("instruction", "question_answer")
    with pytest.raises(DataError):
        method.check_files(method.Config(path=str(file)))
    method.check_files(method.Config(path=str(file), on_error=OnError.skip))
