"""A table as LaTeX: compiles whatever its labels hold, and fits the page in width and in rows a float."""

from __future__ import annotations

import itertools
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from harness.report.table import Table, TableCell, sign
from harness.report.writers import (
    dimmed,
    header_spans,
    labels_of,
    reference_marks,
    title_of,
    why_missing,
)

PACKAGES = "booktabs,amssymb,adjustbox"
LINES = 42
"""Lines of tables that a page holds beside a caption."""
NOTE_LINE = 110
"""Characters of notes that take the height of one line of a table."""
ENOUGH = 8
"""Rows that a panel begins with at the foot of a page at least."""
WIDTH, GAP = 100, 2.5
"""Of a panel and between its columns, in characters: `max width` then shrinks it to two thirds at most."""
HEADING = 14
"""Characters of a line of a column's heading, but for a longer word."""
BREAK = r"\\"
CHARACTERS = {
    **{c: "\\" + c for c in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    # Behind the end of a line they would be read as its option, or as a command not to break the page.
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    # In the old text encoding these are other letters.
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "▲": r"$\blacktriangle$",
    "▼": r"$\blacktriangledown$",
    "△": r"$\vartriangle$",
    "▽": r"$\triangledown$",
    "◆": r"$\blacklozenge$",
    "≈": r"$\approx$",
    "≃": r"$\simeq$",
    "≄": r"$\not\simeq$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "→": r"$\to$",
    "←": r"$\leftarrow$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≠": r"$\neq$",
    "·": r"$\cdot$",
    "\u00d7": r"$\times$",
    "∞": r"$\infty$",
    "\u2212": "$-$",
    "\u2013": "--",
    "—": "---",
    "…": r"\ldots{}",
    "°": r"$^\circ$",
    "\xa0": "~",
}


class Panel(NamedTuple):
    """Some columns of some rows: what stands in one tabular."""

    start: int
    rows: int
    columns: tuple[int, ...]


def latex(table: Table) -> str:
    r"""Booktabs tables with a header line a column factor; the first line names the packages they need.

    Columns that do not fit beside each other stand in panels below each other.
    """
    title, notes = escape(table.title.rstrip(".")), notes_of(table)
    lines = [f"% needs \\usepackage{{{PACKAGES}}}"]
    room = max(LINES // 3, LINES - len(notes) // NOTE_LINE)
    for place, panels in enumerate(floats(table, first=room)):
        blocks = [tabular(table, panel) for panel in panels]
        lines += ["\\begin{table}", "\\centering", *itertools.chain(*separated(blocks))]
        lines += [f"\\caption{{{title}{', continued' * (place > 0)}.}}"]
        if place == 0:
            lines += ["\\smallskip", f"\\parbox{{\\linewidth}}{{\\footnotesize {notes}}}"]
        lines += ["\\end{table}"]
    return "\n".join(lines) + "\n"


def separated(blocks: Sequence[list[str]]) -> Iterator[list[str]]:
    for place, block in enumerate(blocks):
        yield ["", "\\medskip"] * (place > 0) + block


def floats(table: Table, *, first: int) -> list[list[Panel]]:
    """Panels by float: as many as a page holds, `first` lines of the first page."""
    found: list[list[Panel]] = [[]]
    room = first
    for columns in beside_each_other(table):
        start, above = 0, lines_above(table, columns)
        while start < max(1, len(table.rows)):
            if found[-1] and room < min(len(table.rows), ENOUGH) + above:
                found.append([])
                room = LINES
            rows = max(1, min(room - above, len(table.rows) - start))
            found[-1].append(Panel(start=start, rows=rows, columns=columns))
            start, room = start + rows, room - rows - above
    return found


def lines_above(table: Table, columns: Sequence[int]) -> int:
    """What a panel's head takes, and the space between panels."""
    heads = [len(heading_lines(title_of(table.columns[at], table))) for at in columns]
    return len(table.layout.columns) + max(heads, default=1) + 2


def beside_each_other(table: Table) -> list[tuple[int, ...]]:
    """The columns of each panel: as many as fit the page beside the labels."""
    by_label = zip(*(labels_of(row, table) or [""] for row in table.rows), strict=True)
    labels = sum(max(map(len, texts)) + GAP for texts in by_label)
    found: list[list[int]] = [[]]
    room = 0.0
    for place, column in enumerate(table.columns):
        texts = [width_of(line[place]) for line in table.cells]
        width = max(*texts, *map(len, heading_lines(title_of(column, table)))) + GAP
        if found[-1] and room < width:
            found.append([])
        room = (room if found[-1] else WIDTH - labels) - width
        found[-1].append(place)
    return [tuple(places) for places in found]


def width_of(cell: TableCell) -> float:
    """Of a cell's text, in characters of normal size."""
    if cell.estimate is None:
        return len(why_missing(cell))
    spread = 0.7 * (len(cell.spread) + 3) if cell.spread else 0
    return len(cell.value) + spread + 1.5 * len(sign(cell)) + 0.7 * len(reference_marks(cell))


def heading_lines(text: str) -> list[str]:
    """A column's heading, in lines little wider than its numbers."""
    return textwrap.wrap(text, HEADING, break_long_words=False, break_on_hyphens=False) or [""]


def tabular(table: Table, panel: Panel) -> list[str]:
    """A panel, shrunk where a single column is wider than the page."""
    num_labels = max(1, len(table.rows[0]))
    lines = [
        "\\begin{adjustbox}{max width=\\linewidth}",
        f"\\begin{{tabular}}{{{'l' * num_labels}{'r' * len(panel.columns)}}}",
        "\\toprule",
        *head(table, panel, num_labels),
        "\\midrule",
    ]
    for place, ((labels, same, starts), cells) in enumerate(zip(dimmed(table), table.cells, strict=True)):
        if panel.start <= place < panel.start + panel.rows:
            again = [s and place > panel.start for s in same]
            shown = ["" if s else escape(text) for text, s in zip(labels, again, strict=True)] or [""]
            lines += ["\\midrule"] * (starts and place > panel.start)
            lines.append(" & ".join(shown + [of_cell(cells[at]) for at in panel.columns]) + " \\\\")
    return [*lines, "\\bottomrule", "\\end{tabular}", "\\end{adjustbox}"]


def head(table: Table, panel: Panel, num_labels: int) -> list[str]:
    """A line of spans for each factor on top, then the headings."""
    lines = []
    columns = [table.columns[at] for at in panel.columns]
    for depth in range(len(table.layout.columns)):
        spans, rules, at = [], [], num_labels
        for text, width in header_spans(columns, table, depth):
            spans.append(f"\\multicolumn{{{width}}}{{c}}{{{escape(text)}}}")
            rules.append(f"\\cmidrule(lr){{{at + 1}-{at + width}}}")
            at += width
        lines += [" & " * num_labels + " & ".join(spans) + " \\\\", "".join(rules)]
    names = [escape(table.layout.text(f)) for f in table.rows[0]] or [""]
    return [*lines, " & ".join(names + [stacked(title_of(c, table)) for c in columns]) + " \\\\"]


def stacked(text: str) -> str:
    """A heading in several lines, the last beside the labels'."""
    first, *more = [escape(line) for line in heading_lines(text)]
    return f"\\shortstack[r]{{{first}{''.join(BREAK + line for line in more)}}}" if more else first


def notes_of(table: Table) -> str:
    """What a reader must know, and the footnotes."""
    notes = [*table.caption, *(f"[{i + 1}] {note}" for i, note in enumerate(table.footnotes))]
    return " ".join(with_code(line) for line in notes)


def with_code(text: str) -> str:
    """A sentence, what stands between backticks as code: alone each would begin a quotation."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    return "".join(f"\\texttt{{{escape(part)}}}" if i % 2 else escape(part) for i, part in enumerate(parts))


def of_cell(cell: TableCell) -> str:
    if cell.estimate is None:
        return "\\emph{" + escape(why_missing(cell)) + "}"
    value = escape(cell.value)
    value = {1: f"\\textbf{{{value}}}", 2: f"\\underline{{{value}}}"}.get(cell.rank, value)
    spread = f" {{\\scriptsize $\\pm$ {escape(cell.spread)}}}" if cell.spread else ""
    return value + spread + escape(sign(cell)) + escape(reference_marks(cell))


def escape(text: str) -> str:
    """Text that means itself; what LaTeX's fonts cannot show is named by its code."""
    # Two hyphens in a row would be a dash.
    pairs = itertools.pairwise([*text, ""])
    return "".join(escaped(c) + ("{}" if c == after == "-" else "") for c, after in pairs)


def escaped(c: str) -> str:
    if c in CHARACTERS:
        return CHARACTERS[c]
    if c.isspace() or unicodedata.category(c).startswith("C"):
        return " "
    # ASCII, and the Latin letters that LaTeX's input encoding knows.
    if c < "\x7f" or (c.isalpha() and unicodedata.name(c, "").startswith("LATIN") and c < "\u0180"):
        return c
    command = greek(c)
    return f"$\\{command}$" if command else f"\\texttt{{U+{ord(c):04X}}}"


LIKE_LATIN = frozenset(
    {"alpha", "beta", "epsilon", "zeta", "eta", "iota", "kappa", "mu", "nu", "rho", "tau", "chi"}
)
"""Greek letters whose capital has no command."""


def greek(c: str) -> str:
    """The command of a Greek letter; empty for another character, and for a letter that has none."""
    words = unicodedata.name(c, "").split()
    if len(words) != 4 or words[0] != "GREEK" or words[2] != "LETTER" or words[3] == "OMICRON":
        return ""
    letter = {"LAMDA": "lambda"}.get(words[3], words[3].lower())
    if words[1] == "SMALL":
        return letter
    return "" if letter in LIKE_LATIN else letter.capitalize()
