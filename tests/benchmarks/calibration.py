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
`make calibration` draws tables, decides each with the code that decides reports, and writes this page. A
share rests on {tables} tables: its standard error is {of_5:.1f} points at 5 %, {of_80:.1f} at 80 %.

Each table has a block effect of its seed (2 SDs of the noise) and noise of its own for every run. Errors are
of whole tables: one wrong mark among all comparisons with the baseline is an error. "one arm 5x": one
configuration is five times noisier than the others; "runs missing": half as many as there are cells; "three
arms a run": they share a run inside each seed and differ by a third of its noise. "before" is a paired t test
for each cell with Holm's correction over 4 metrics, the rule before this one. With 2 seeds nothing is said
about methods, so that nothing can be wrong about them: documents decide about these checkpoints, which the
last table is about."""


def document(told: list[dict[str, Any]]) -> str:
    """The page: rows of one title under each other; of a row that was made twice, the last counts."""
    tables: dict[str, dict[str, Any]] = {}
    for table in told:
        rows = tables.setdefault(table["title"], {**table, "rows": {}})["rows"]
        rows.update({row[0]: row for row in table["rows"]})
    number = min(table["raw"]["tables"] for table in told)
    errors = {f"of_{share}": 100 * (share / 100 * (1 - share / 100) / number) ** 0.5 for share in (5, 80)}
    lines = [HEAD.format(tables=number, **errors)]
    for table in tables.values():
        lines += section({**table, "rows": table["rows"].values()})
    commits = ", ".join(dict.fromkeys(table["commit"] for table in told))
    return "\n".join([*lines, "", f"Simulated at commit {commits}."]) + "\n"


if __name__ == "__main__":
    page = document(told_of(Path(sys.argv[1]), "calibration"))
    Path(sys.argv[2]).write_text(page, encoding="utf-8")
