"""LaTeX that compiles: the rules of the language that an engine would hold it to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import simulate

from harness.report import making, records
from harness.report.latex import ROWS, escape, latex
from harness.report.layout import Layout
from harness.report.tabulate import build

LABELS = (
    "[]",
    '["language", "pii"]',
    "a_b & c% $x$ #1 {y} \\z ~ ^",
    "< | >",
    "λ = 0.1 → ∞",
    "Ω \u0391 \u03bf",
    "naïve Łódź",
    "中文 🙂",
    "two\nlines\ttab",
)


@pytest.mark.parametrize("text", LABELS)
def test_no_character_of_a_label_is_a_command_or_unknown(text: str) -> None:
    found = escape(text)
    bare = re.sub(r"\\[&%$#_{}]|\\[A-Za-z]+(\{\})?|\$\^\\circ\$|\{\[\}|\{\]\}", "", found)
    bare = bare.replace("{U+", "").replace("}", "") if "texttt" in found else bare
    assert not set(bare.replace("$", "")) & set("\\&%#_{}^<>|[]")
    assert found.count("$") % 2 == found.count("\\$") % 2
    assert not re.search(r"[\n\t]", found)
    assert all(c < "\u0180" for c in found), "input encodings of LaTeX end with Latin Extended-A"


def test_greek_letters_and_arrows_are_the_commands_of_their_names() -> None:
    assert escape("λΩ→") == r"$\lambda$$\Omega$$\to$"
    assert escape("\u0391") == r"\texttt{U+0391}", "a capital alpha has no command"
    assert escape("中") == r"\texttt{U+4E2D}"


def lines_of(text: str) -> list[str]:
    inside = text[text.index("\\toprule") : text.index("\\bottomrule")]
    return [line for line in inside.splitlines() if line.endswith("\\\\")]


def test_every_line_has_its_cells_and_braces_and_no_row_begins_with_a_bracket(tmp_path: Path) -> None:
    levels = {text: {"optimizer.x": i} for i, text in enumerate(LABELS)}
    factors = {"[f]": levels, "bits": {"[]": {"optimizer.y": 1}, "8_bit": {"optimizer.y": 2}}}
    root = simulate.experiment(tmp_path, factors=factors, items=12)
    text = latex(build(making.results_of(records.read(root, "demo")), Layout()))
    specification = re.search(r"\\begin\{tabular\}\{(\w+)\}", text)
    assert specification
    for line in lines_of(text):
        bare = line.replace("\\&", "")
        spanned = sum(int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", line))
        assert bare.count(" & ") + 1 + spanned == len(specification[1]), line
        assert not line.lstrip().startswith(("[", "*")), line
    plain = re.sub(r"\\[{}]", "", text)
    assert plain.count("{") == plain.count("}")
    assert text.startswith("% needs \\usepackage{booktabs,amssymb,adjustbox}")
    assert "\\begin{adjustbox}{max width=\\linewidth}" in text


def test_a_long_table_is_cut_into_floats_that_fit_a_page(tmp_path: Path) -> None:
    factors = {"f": {f"l{i}": {"optimizer.x": i} for i in range(2 * ROWS + 3)}}
    root = simulate.experiment(tmp_path, factors=factors, seeds=(0,), items=12)
    text = latex(build(making.results_of(records.read(root, "demo")), Layout()))
    parts = text.split("\\begin{table}")[1:]
    assert [len(lines_of(part)) - 1 for part in parts] == [ROWS, ROWS, 3]
    assert all("\\caption{" in part for part in parts)
    assert len(set(re.findall(r"^l\d+ ", text, flags=re.M))) == 2 * ROWS + 3


def test_hyphens_in_a_row_are_no_dash() -> None:
    assert escape("--flag a-b ---") == "-{}-flag a-b -{}-{}-"
    assert escape("1\u20132") == "1--2"
