"""LaTeX that compiles: the rules of the language that an engine would hold it to."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import simulate

from harness.report import frames, making, records
from harness.report.latex import LINES, WIDTH, escape, latex, width_of, with_code
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
    "*",
)


@pytest.mark.parametrize("text", LABELS)
def test_no_character_of_a_label_is_a_command_or_unknown(text: str) -> None:
    found = escape(text)
    bare = re.sub(r"\\[&%$#_{}]|\\[A-Za-z]+(\{\})?|\$\^\\circ\$|\{[][*]\}", "", found)
    bare = bare.replace("{U+", "").replace("}", "") if "texttt" in found else bare
    assert not set(bare.replace("$", "")) & set("\\&%#_{}^<>|[]*")
    assert found.count("$") % 2 == found.count("\\$") % 2
    assert not re.search(r"[\n\t]", found)
    assert all(c < "\u0180" for c in found), "input encodings of LaTeX end with Latin Extended-A"


def test_greek_letters_and_arrows_are_the_commands_of_their_names() -> None:
    assert escape("λΩ→") == r"$\lambda$$\Omega$$\to$"
    assert escape("\u0391") == r"\texttt{U+0391}", "a capital alpha has no command"
    assert escape("中") == r"\texttt{U+4E2D}"


def lines_of(panel: str) -> list[str]:
    """The lines of a tabular."""
    inside = panel[panel.index("\\toprule") : panel.index("\\bottomrule")]
    return [line for line in inside.splitlines() if line.endswith("\\\\")]


FACTORS = {
    "[f]": {text: {"optimizer.x": i} for i, text in enumerate(LABELS)},
    "bits": {"[]": {"optimizer.y": 1}, "8_bit": {"optimizer.y": 2}},
}


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> frames.Results:
    root = simulate.experiment(tmp_path_factory.mktemp("odd"), factors=FACTORS, items=12)
    return making.results_of(records.read(root, "demo"))


def panels(text: str) -> list[str]:
    return re.findall(r"\\begin\{tabular\}(.*?)\\end\{tabular\}", text, flags=re.DOTALL)


@pytest.mark.parametrize("columns", [(), ("bits",), ("[f]",)])
def test_every_line_has_its_cells_and_braces_and_no_row_begins_with_a_command(
    odd: frames.Results, columns: tuple[str, ...]
) -> None:
    text = latex(build(odd, Layout(columns=columns)))
    for panel in panels(text):
        specification = re.match(r"\{(\w+)\}", panel)
        assert specification
        for line in lines_of(panel):
            bare = line.replace("\\&", "")
            spanned = sum(int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", line))
            assert bare.count(" & ") + 1 + spanned == len(specification[1]), line
            assert not line.lstrip().startswith(("[", "*")), line
    plain = re.sub(r"\\[{}]", "", text)
    assert plain.count("{") == plain.count("}")
    assert text.startswith("% needs \\usepackage{booktabs,amssymb,adjustbox}")


def test_a_wide_table_is_cut_into_panels_that_can_be_read(odd: frames.Results) -> None:
    """54 columns: shrunk into one line of the page nobody could read them."""
    table = build(odd, Layout(columns=("[f]",)))
    found = panels(latex(table))
    columns = [len(re.match(r"\{(\w+)\}", panel)[1]) - 1 for panel in found]  # type: ignore[index]
    assert sum(columns) == len(table.columns) > 50
    widths = iter(max(width_of(line[at]) for line in table.cells) for at in range(len(table.columns)))
    assert all(sum(next(widths) for _ in range(number)) <= WIDTH for number in columns)


def test_a_long_table_is_cut_into_floats_that_fit_a_page(tmp_path: Path) -> None:
    factors = {"f": {f"l{i}": {"optimizer.x": i} for i in range(2 * LINES + 3)}}
    root = simulate.experiment(tmp_path, factors=factors, seeds=(0,), items=12)
    text = latex(build(making.results_of(records.read(root, "demo")), Layout()))
    parts = text.split("\\begin{table}")[1:]
    assert all(sum(map(len, map(lines_of, panels(part)))) <= LINES for part in parts)
    assert all("\\caption{" in part for part in parts)
    assert len(set(re.findall(r"^l\d+ ", text, flags=re.M))) == 2 * LINES + 3


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs LaTeX")
@pytest.mark.parametrize("encoding", ["", "\\usepackage[T1]{fontenc}"])
@pytest.mark.parametrize("columns", [(), ("bits",), ("[f]",)])
def test_an_engine_compiles_it_onto_pages_that_hold_it(
    tmp_path: Path, odd: frames.Results, columns: tuple[str, ...], encoding: str
) -> None:
    lines = ["\\documentclass{article}", encoding, "\\usepackage{booktabs,amssymb,adjustbox}"]
    lines += ["\\begin{document}", "\\listoftables", latex(build(odd, Layout(columns=columns)))]
    (tmp_path / "page.tex").write_text("\n".join([*lines, "\\end{document}"]))
    for _ in range(2):  # the list of tables is read by the second
        done = subprocess.run(
            ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page"],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-2000:]
    assert not re.findall(r"Overfull \\hbox|Float too large|Missing character", done.stdout)


def test_code_in_a_note_is_no_quotation() -> None:
    assert with_code("say `reseed: all` or `a_b`") == "say \\texttt{reseed: all} or \\texttt{a\\_b}"
    assert with_code("a ` alone") == escape("a ` alone")


def test_hyphens_in_a_row_are_no_dash() -> None:
    assert escape("--flag a-b ---") == "-{}-flag a-b -{}-{}-"
    assert escape("1\u20132") == "1--2"
