"""What a record or an experiment says is text in every report, never markup that a browser runs."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest
import simulate
from markdown_it import MarkdownIt

from harness.report.making import report
from harness.report.record import visible
from harness.report.writers import code_markdown, escape_markdown, escape_tags, label_markdown

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>"


def test_no_text_of_a_record_is_markup(tmp_path: Path) -> None:
    simulate.experiment(tmp_path, tasks=())
    for i, path in enumerate(sorted(tmp_path.glob("records/demo/*/record.json"))):
        record = json.loads(path.read_text())
        record["experiment"]["question"] = EVIL
        record["experiment"]["claims"] = [
            {"source": EVIL, "says": "perplexity[quantizer=8 bit] <= 1", "finding": EVIL}
        ]
        if i == 0:
            record["outcome"] = {"status": "failed", "reason": EVIL, "stage": "pretrain"}
            record["metrics"] = []
        path.write_text(json.dumps(record))
    folder = report("demo", store=tmp_path, out=tmp_path / "out", quiet=True)
    for name in ("README.md", "index.html"):
        text = (folder / name).read_text(encoding="utf-8")
        assert EVIL not in text
        assert "<img src=x" not in text
        assert "alert(1)" in text, "the text itself is shown"
        assert not re.search(r"<script>\s*alert", text)


EVERY = f"{EVIL} [a](javascript:alert(2)) ![i](http://evil.example/x.png) | \\input{{/etc/passwd}}\n# b"
"""A tag, a link, an image that a browser would fetch, the end of a column, a file for LaTeX, a line."""


def test_no_name_unit_label_or_note_is_markup_in_any_format(tmp_path: Path) -> None:
    factors = {"way" + EVERY: {"full": {"peft": "full"}, "lora" + EVERY: {"peft": "lora"}}, "bits": [8, 4]}
    columns = [
        {"metric": "recall.acc", "label": "accuracy" + EVERY, "unit": "points" + EVERY, "note": EVERY},
        "bits_per_byte",
    ]
    layout = {
        "title": "T" + EVERY,
        "labels": {"full": "all" + EVERY},
        "footnotes": [EVERY],
        "metrics": columns,
    }
    says = "recall.acc[bits=8] > recall.acc[bits=4]"
    claims = [{"says": says, "source": EVERY, "finding": EVERY, "answers": True}]
    simulate.experiment(tmp_path, factors=factors, items=6, report=layout, claims=claims)
    for i, path in enumerate(sorted(tmp_path.glob("records/demo/*/record.json"))):
        record = json.loads(path.read_text())
        record["provenance"] |= {"versions": {EVERY: EVERY + str(i % 2)}, "platform": EVERY + str(i % 2)}
        record["facts"]["stage" + EVERY] = {"sha256": EVERY + str(i % 3), "loss_curve": [[0, 2.0], [1, 1.0]]}
        record["stages"][0] |= {"stage": "stage" + EVERY, "part": EVERY, "alone": bool(i % 2)}
        path.write_text(json.dumps(record))
    out = report("demo", store=tmp_path, out=tmp_path / "out", quiet=True)
    text = (out / "README.md").read_text()
    assert "](javascript" not in text
    assert "](http" not in text
    assert "\n# b" not in text
    assert "\\input{" not in (out / "table.tex").read_text()
    for file in (out / "README.md", out / "index.html", *out.glob("figures/*.svg")):
        assert not re.search(r"<script>\s*alert|<img src=x", file.read_text()), file
    assert {file.parent for file in out.rglob("*.svg")} == {out / "figures"}


@pytest.mark.parametrize("text", ["<b>", "</b>", "<!-- a -->", "<?php", "<a href='x'>", "<svg/onload=x>"])
def test_whatever_would_open_a_tag_is_text(text: str) -> None:
    assert escape_tags(text) == text.replace("<", "&lt;")


def test_comparisons_and_code_are_left_readable() -> None:
    assert escape_markdown("a < 5 and b <= c | d") == "a < 5 and b <= c \\| d"
    assert code_markdown("loss[a] <= loss[b] ` <b>") == "`loss[a] <= loss[b] ' <b>`"


LABELS = tuple(
    r"""
[] | ["language", "pii"] | a|b | a\|b | back\ | x\\|y | [x](y) | ![x](y) | [x]: y | <script>x</script> | a<b
a&lt;b | &amp; | &#60; | __p__ | a_b | _a | *b* | $x_1$ | ~~s~~ | `c` | a `b | \input | # h | - l | <http://e.vil>
100 % | emoji 🙂
""".replace("\n", " | ")
    .strip(" |")
    .split(" | ")
)


def cells(first: str) -> list[str]:
    """A row of a Markdown table as a reader sees it."""
    markdown = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    return re.findall(r"<td>(.*?)</td>", markdown.render(f"| a | b |\n|---|---|\n| {first} | 1 |\n"))


@pytest.mark.parametrize("text", LABELS)
def test_a_label_is_read_as_it_is_written(text: str) -> None:
    shown = cells(label_markdown(text))
    assert [html.unescape(cell) for cell in shown] == [text, "1"]
    assert "<" not in shown[0], "no markup of its own"


@pytest.mark.parametrize("text", LABELS)
def test_prose_stays_in_its_column_and_links_nowhere(text: str) -> None:
    shown = cells(escape_markdown(text))
    assert len(shown) == 2
    assert not {"<a", "<img", "<script"} & set(re.findall(r"<\w+", shown[0]))


def test_labels_that_look_alike_are_told_apart() -> None:
    alike = ["two lines", "two\nlines", " two lines", "two lines ", "two\u00a0lines", "two\x07 lines"]
    assert len({visible(text) for text in alike}) == len(alike)
    assert visible("") == '""'
    assert [visible(text) for text in ("16 bit", "naïve 🙂", "[]")] == ["16 bit", "naïve 🙂", "[]"]
    assert all(visible(text).isprintable() for text in alike)
