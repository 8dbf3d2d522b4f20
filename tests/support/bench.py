"""What benchmarks share: time that neighbours on the machine do not change, and a table on the terminal."""

import json
import os
import statistics
import subprocess
import time
from pathlib import Path

RAW = "HARNESS_BENCH_OUT"
"""Names the file that gets one line of JSON for each table; `make performance` makes a report of it."""


def processor_seconds(action):
    """Processor time of this process, all its threads together."""
    start = time.process_time()
    action()
    return time.process_time() - start


def in_turn(actions, *, rounds):
    """Processor seconds of each action, `rounds` times in turn after one unmeasured call of each."""
    for action in actions.values():
        action()
    found = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            found[name].append(processor_seconds(action))
    return found


def median_ratio(found, over, under):
    """Median over the rounds of seconds of one action by those of another in the same round."""
    return statistics.median(a / b for a, b in zip(found[over], found[under], strict=True))


def commit():
    """What is measured."""
    git = ["git", "-c", "safe.directory=*", "-C", str(Path(__file__).parent)]
    command = [*git, "describe", "--always", "--dirty", "--match=-"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def show(title, columns, rows, *, raw=None, kind="performance"):
    """Print a table, numbers to the right; `raw` is what its numbers come from, `kind` the page it is for."""
    if os.environ.get(RAW):
        told = {"title": title, "columns": columns, "rows": rows, "raw": raw or {}, "kind": kind}
        told |= {"load": os.getloadavg(), "commit": commit()}
        with Path(os.environ[RAW]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(told) + "\n")
    cells = [[f"{value:,.3g}" if isinstance(value, float) else str(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]

    def line(values):
        first, *rest = zip(values, widths, strict=True)
        return "  ".join([first[0].ljust(first[1]), *(value.rjust(width) for value, width in rest)])

    print(f"\n{title}\n", line(columns), *map(line, cells), sep="\n")
