"""Reference tables: the survey's rows joined with the methods and model presets that are installed."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.report.latex import PACKAGES
from harness.report.latex import escape as escape_latex
from harness.report.layout import HERE, Layout, conf_folder, read_yaml
from harness.report.writers import escape_markdown
from harness.store.files import write_whole

SHAPES = {"num_layers": "#L", "num_heads": "#H", "dim": "d_model", "max_length": "MCL"}
"""Field of a preset -> the survey's column."""
NARROWEST = 24
"""Characters to which the longest column of a table may be wrapped on a terminal."""


def table(layout: Layout) -> tuple[list[str], list[list[str]]]:
    """Headings and rows; a method that is not installed is marked."""
    spec = layout.reference
    heads, rows = [str(c) for c in spec["columns"]], [[str(v) for v in row] for row in spec["rows"]]
    known = installed()
    if "overrides" in spec:
        rows = [[*row, overrides_of(dict(zip(heads, row, strict=True)), spec["overrides"])] for row in rows]
        heads = [*heads, HERE]
    if spec.get("presets"):
        rows += [preset_row(path, heads) for path in sorted((conf_folder().parent / "model").glob("*.yaml"))]
    if "axes" in spec:
        rows += further_methods(rows, spec["axes"], known)
    place = heads.index(HERE)
    for row in rows:
        row[place] = " ".join(marked(part, known) for part in row[place].split())
    return heads, rows


def installed() -> dict[str, dict[str, str]]:
    """Axis -> method -> summary, from the registry's index (nothing is imported)."""
    from harness.registry import index as registry_index

    found: dict[str, dict[str, str]] = {}
    for method in registry_index.read()["methods"]:
        found.setdefault(method["axis"], {})[method["name"]] = method["summary"]
    return found


def marked(override: str, known: Mapping[str, Mapping[str, str]]) -> str:
    """An override, with a mark where it chooses a method that is not installed."""
    key, _, value = override.partition("=")
    names = re.findall(r"\w+", value)
    missing = key in known and any(name not in known[key] for name in names)
    return override + (" (not installed)" if missing else "")


def overrides_of(row: Mapping[str, str], spec: Mapping[str, Any]) -> str:
    """The overrides that give this row, as far as the survey states it."""
    found = []
    for column, rule in spec.items():
        word = row[column]
        if isinstance(rule, Mapping):
            found.append(str(rule.get(word, "")))
        elif re.fullmatch(r"[0-9.]+(e-?[0-9]+)?", word):
            found.append(str(rule).format(word))
    return " ".join(part for part in found if part)


def preset_row(path: Path, heads: Sequence[str]) -> list[str]:
    """One of our own shapes, as a row of the model cards."""
    node = read_yaml(path).get("model") or {}
    row = dict.fromkeys(heads, "-") | {heads[0]: path.stem, HERE: f"model={path.stem}"}
    for key, column in SHAPES.items():
        value = node.get(key)
        if column in row and value is not None:
            row[column] = str(value)
    if "bias" in node and "Bias" in row:
        row["Bias"] = "✓" if node["bias"] else "no"
    return [row[h] for h in heads]


def further_methods(
    rows: Sequence[Sequence[str]], axes: Mapping[str, str], known: Mapping[str, Mapping[str, str]]
) -> list[list[str]]:
    """Installed methods of these axes that the survey's table does not have."""
    shown = {row[-1] for row in rows}
    return [
        [title, name, known[axis][name], f"{axis}={name}"]
        for axis, title in axes.items()
        for name in sorted(known.get(axis, {}))
        if f"{axis}={name}" not in shown and name != "none"
    ]


def write(layout: Layout, folder: Path, formats: Sequence[str]) -> Path:
    """The table in every format; returns the folder."""
    heads, rows = table(layout)
    folder.mkdir(parents=True, exist_ok=True)
    for name in formats:
        suffix, writer = WRITERS[name]
        write_whole(folder / f"{layout.name}.{suffix}", writer(layout, heads, rows))
    return folder


def show(layout: Layout) -> None:
    """Print it: as a table where its columns fit beside one that wraps, else a paragraph a row."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console, (heads, rows) = Console(), table(layout)
    widths = {head: max(map(len, column)) for head, *column in zip(heads, *rows, strict=True)}
    widths = {head: max(len(head), width) for head, width in widths.items()}
    if sum(widths.values()) - max(widths.values()) + 3 * len(heads) + NARROWEST > console.width:
        console.print(Text(layout.title, style="bold"))
        for first, *others in rows:
            said = [
                f"{head}: {value}"
                for head, value in zip(heads[1:], others, strict=True)
                if value not in ("", "-")
            ]
            console.print(Text(f"{first}   ", style="bold").append("; ".join(said), style="not bold"))
        return
    shown = Table(title=layout.title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for head in heads:
        fits = widths[head] < max(widths.values())
        shown.add_column(
            Text(head), no_wrap=fits, overflow="fold", min_width=widths[head] if fits else NARROWEST
        )
    for row in rows:
        shown.add_row(*map(Text, row))
    console.print(shown)


def as_markdown(layout: Layout, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [
        f"# {layout.title}\n",
        "| " + " | ".join(map(escape_markdown, heads)) + " |",
        "|" + "---|" * len(heads),
    ]
    return "\n".join([*lines, *("| " + " | ".join(map(escape_markdown, row)) + " |" for row in rows)]) + "\n"


def as_latex(layout: Layout, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    body = [" & ".join(map(escape_latex, row)) + " \\\\" for row in rows]
    return "\n".join(
        [
            f"% needs \\usepackage{{{PACKAGES}}}",
            "\\begin{adjustbox}{max width=\\linewidth}",
            f"\\begin{{tabular}}{{{'l' * len(heads)}}}",
            "\\toprule",
            " & ".join(map(escape_latex, heads)) + " \\\\",
            "\\midrule",
            *body,
            "\\bottomrule",
            "\\end{tabular}",
            "\\end{adjustbox}\n",
        ]
    )


def as_csv(layout: Layout, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([heads, *rows])
    return out.getvalue()


def as_json(layout: Layout, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return (
        json.dumps([dict(zip(heads, row, strict=True)) for row in rows], indent=1, ensure_ascii=False) + "\n"
    )


def as_html(layout: Layout, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["".join(f"<th>{html.escape(h)}</th>" for h in heads)]
    lines += ["".join(f"<td>{html.escape(v)}</td>" for v in row) for row in rows]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>\n"


Writer = Callable[[Layout, Sequence[str], Sequence[Sequence[str]]], str]
WRITERS: Mapping[str, tuple[str, Writer]] = {
    "md": ("md", as_markdown),
    "latex": ("tex", as_latex),
    "html": ("html", as_html),
    "csv": ("csv", as_csv),
    "json": ("json", as_json),
}
