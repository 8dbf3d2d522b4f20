"""reports/performance from the lines that benchmarks wrote: every table, where it was measured, and what of.

Run by `make performance`: performance.py LINES FOLDER
"""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LIBRARIES = ("torch", "transformers", "peft", "lm_eval", "datatrove", "hydra-core")
BUSY = 1.25
"""Load over the machine's cores from which on a table was measured beside other work."""


def environment() -> dict[str, Any]:
    """Where this runs."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "processor": names[0].partition(":")[2].strip() if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": os.environ.get("OMP_NUM_THREADS", "as many as cores"),
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
    }


def document(tables: list[dict[str, Any]], where: dict[str, Any]) -> str:
    """The report as one Markdown page; of a table that was measured twice, the last counts."""
    lines = [
        "# Performance",
        "",
        "Every row is set against a peer that was measured in turn with it, in one run, in processor",
        "seconds, which other work on the machine changes little. `make bench performance` makes this page",
        "anew; [raw.json](raw.json) holds what its numbers come from.",
        "",
        "| environment | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in where.items()),
    ]
    for table in {table["title"]: table for table in tables}.values():
        lines += section(table)
        lines += ["", f"At commit {table['commit']}{beside(table['load'][0], where['cores'])}."]
    return "\n".join(lines) + "\n"


def section(table: dict[str, Any]) -> list[str]:
    """A table under its title, as Markdown."""
    heads = [str(head) for head in table["columns"]]
    lines = ["", f"## {table['title']}", "", f"| {' | '.join(heads)} |"]
    lines.append("|---|" + "---:|" * (len(heads) - 1))
    return lines + [f"| {' | '.join(map(text, row))} |" for row in table["rows"]]


def told_of(lines: Path, kind: str) -> list[dict[str, Any]]:
    """The tables of a kind that benchmarks wrote, in their order."""
    tables = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    return [table for table in tables if table["kind"] == kind]


def beside(load: float, cores: int) -> str:
    """That other work ran on the machine, where it did."""
    return f", beside other work (a load of {load:.1f} on {cores} cores)" if load > BUSY * cores else ""


def text(value: Any) -> str:
    """A cell of a table."""
    return f"{value:,.3g}" if isinstance(value, float) else str(value)


def main(lines: Path, folder: Path) -> None:
    """Write the page, and what it comes from."""
    tables = told_of(lines, "performance")
    where = environment()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(document(tables, where), encoding="utf-8")
    told = json.dumps({"environment": where, "tables": tables}, indent=1)
    (folder / "raw.json").write_text(told + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
