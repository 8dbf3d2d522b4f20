"""A table as LaTeX: compiles whatever its labels hold, and fits the page in width and in rows a float."""

from __future__ import annotations

import itertools
import unicodedata

from harness.report.table import Table, TableCell, sign
from harness.report.writers import (
    dimmed,
    header_spans,
    reference_marks,
    title_of,
    why_missing,
)

PACKAGES = "booktabs,amssymb,adjustbox"
ROWS = 45
"""Rows of one float: what a page of text holds beside a caption."""
CHARACTERS = {
    **{c: "\\" + c for c in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    # Behind the end of a line a bracket would be read as its option.
    "[": "{[}",
    "]": "{]}",
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


def latex(table: Table) -> str:
    r"""A booktabs table with a header line a column factor; its first line names the packages it needs."""
    starts = range(0, max(1, len(table.rows)), ROWS)
    floats = [one_float(table, start, first=start == 0) for start in starts]
    return "\n".join([f"% needs \\usepackage{{{PACKAGES}}}", *itertools.chain(*floats)]) + "\n"


def one_float(table: Table, start: int, *, first: bool) -> list[str]:
    """The rows from `start` on with the head, and the caption; later ones are its continuation."""
    num_labels = max(1, len(table.rows[0]))
    lines = [
        "\\begin{table}",
        "\\centering",
        "\\begin{adjustbox}{max width=\\linewidth}",
        f"\\begin{{tabular}}{{{'l' * num_labels}{'r' * len(table.columns)}}}",
        "\\toprule",
        *head(table, num_labels),
        "\\midrule",
    ]
    for place, ((labels, same, starts), cells) in enumerate(zip(dimmed(table), table.cells, strict=True)):
        if start <= place < start + ROWS:
            again = [s and place > start for s in same]
            shown = ["" if s else escape(text) for text, s in zip(labels, again, strict=True)] or [""]
            lines += ["\\midrule"] * (starts and place > start)
            lines.append(" & ".join(shown + [of_cell(c) for c in cells]) + " \\\\")
    return [
        *lines,
        "\\bottomrule",
        "\\end{tabular}",
        "\\end{adjustbox}",
        caption(table) if first else f"\\caption{{{escape(table.title.rstrip('.'))}, continued.}}",
        "\\end{table}",
    ]


def head(table: Table, num_labels: int) -> list[str]:
    """A line of spans for each factor on top, then the headings."""
    lines = []
    for depth in range(len(table.layout.columns)):
        spans, rules, at = [], [], num_labels
        for text, width in header_spans(table, depth):
            spans.append(f"\\multicolumn{{{width}}}{{c}}{{{escape(text)}}}")
            rules.append(f"\\cmidrule(lr){{{at + 1}-{at + width}}}")
            at += width
        lines += [" & " * num_labels + " & ".join(spans) + " \\\\", "".join(rules)]
    names = [escape(table.layout.text(f)) for f in table.rows[0]] or [""]
    return [*lines, " & ".join(names + [escape(title_of(c, table)) for c in table.columns]) + " \\\\"]


def caption(table: Table) -> str:
    """Title, caption and footnotes."""
    notes = [*table.caption, *(f"[{i + 1}] {note}" for i, note in enumerate(table.footnotes))]
    text = " ".join(escape(line) for line in [table.title.rstrip(".") + ".", *notes])
    return f"\\caption{{{text}}}"


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
