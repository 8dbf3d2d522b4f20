"""docs/calibration.md from the lines that `bench_calibration.py` wrote.

Run by `make calibration`: calibration.py LINES PAGE
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from performance import section, told_of

HEAD = """# How well a report decides

Errors, power and coverage of the rule of [How a report decides](decisions.md), by simulation:
`make calibration` draws the tables, decides each with the code that decides reports, and writes this page. A
share rests on 1,000 tables: the standard error of 5 % is 0.7, of 80 % 1.3.

Each table has a block effect for its seed (2 SDs of the noise) and noise of its own for every run. Errors are
of whole tables: one wrong mark among all comparisons with the baseline is an error. With 2 seeds nothing is
said about methods, so that no such error can be made: documents decide about these checkpoints (last table).
"before" is a paired t test for each cell with Holm's correction over 4 metrics, the rule before this one."""


def document(tables: list[dict[str, Any]]) -> str:
    """The page; of a table that was made twice, the last counts."""
    latest = {table["title"]: table for table in tables}
    commits = ", ".join(dict.fromkeys(table["commit"] for table in latest.values()))
    lines = [HEAD, *(line for table in latest.values() for line in section(table))]
    return "\n".join([*lines, "", f"Simulated at commit {commits}."]) + "\n"


if __name__ == "__main__":
    found = told_of(Path(sys.argv[1]), "calibration")
    Path(sys.argv[2]).write_text(document(found), encoding="utf-8")
