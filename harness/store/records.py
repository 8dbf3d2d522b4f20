"""Records: what a cell yielded, one directory a cell; the only truth a report reads."""

from __future__ import annotations

import glob
import logging
import math
import re
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.errors import ConfigError, NewerFormatError, StoreError
from harness.forms import misfit
from harness.stated import levels_of
from harness.store.files import disk_errors, read_json, write_json
from harness.store.recorded import Recorded

FORMAT = 1
NAME = "record.json"
TRIALS = ".tune"
"""After a sweep's name: where the records of its trials stand."""
_NAME = re.compile(r"\w[\w .+=@,~-]*")
_LONGEST = 200
"""Bytes of a name: file systems take 255, and what is written beside it has a suffix."""
TOLERANCE = 1e-6
"""Relative difference up to which a number that was measured again counts as equal."""
_TIMED = ("efficiency", "per_second", "seconds")
log = logging.getLogger("harness.store")


def sweep_name(text: str) -> str:
    """A sweep's name as the store has it: one folder, so that `team/first` is written `team.first`.

    Raises: ConfigError for what is no name, `../elsewhere` above all
    """
    name = text.replace("/", ".")
    if not _NAME.fullmatch(name) or name[-1] in " ." or len(name.encode()) > _LONGEST:
        raise ConfigError(
            f"name={text} is no name of a sweep; use letters, digits and . _ - (a / is written as .), "
            f"beginning with a letter or digit, at most {_LONGEST} bytes"
        )
    return name


def sweep_dir(root: Path, sweep: str) -> Path:
    """Where the records of a sweep stand: `<store>/records/<sweep>`.

    Raises: ConfigError for what is no name
    """
    return root / "records" / sweep_name(sweep)


def record_dir(root: Path, *, sweep: str, cell: str) -> Path:
    """Where the record of a cell stands: `<store>/records/<sweep>/<cell id>`.

    Raises: ConfigError for a sweep's name that is none
    """
    return sweep_dir(root, sweep) / cell


def write_record(directory: Path, record: dict[str, Any]) -> None:
    """Write a record; a reader sees the old one or the whole new one.

    Raises: StoreFullError, StoreError where the store is read-only, ValueError for what no reader would take
    """
    record = {**record, "format": FORMAT}
    check_record(record)
    write_json(directory / NAME, record)


def check_record(record: dict[str, Any]) -> None:
    """Hold a record against its form.

    Raises: ValueError saying in words what is wrong with it
    """
    wrong = misfit(record, Recorded)
    if wrong:
        raise ValueError(wrong)
    for name, factor in record["experiment"].get("factors", {}).items():
        levels_of(name, factor)


def read_record(path: Path) -> dict[str, Any]:
    """Read a record; `path` is its directory or its record.json.

    Raises: StoreError where there is none or it is damaged; NewerFormatError
    """
    file = path / NAME if path.is_dir() else path
    try:
        record = read_json(file, dict, newest=FORMAT)
        check_record(record)
    except FileNotFoundError:
        raise StoreError(f"No record at {file}; they stand in <store>/records/<sweep>/<cell>/") from None
    except ValueError as error:
        raise StoreError(f"{file} is not a record: {error}. Run the sweep again to write it anew") from None
    return record


def records(root: Path, *, sweep: str | None = None) -> Iterator[tuple[Path, dict[str, Any]]]:
    """All records of a sweep, or of all sweeps, with their directories, by name.

    A damaged one is set aside and named, once, and the others are read.
    Raises: NewerFormatError
    """
    below = glob.escape(sweep_name(sweep)) if sweep else "*"
    for file in sorted((root / "records").glob(f"{below}/*/{NAME}")):
        try:
            yield file.parent, read_record(file)
        except NewerFormatError:
            raise
        except StoreError as error:
            log.warning("%s (%s)", error, set_aside(root, file))


def numbers(record: Mapping[str, Any]) -> dict[str, float | None]:
    """Metrics of a record by `<evaluator>.<task>.<metric>`."""
    return {f"{m['evaluator']}.{m['task']}.{m['metric']}": m["value"] for m in record["metrics"]}


def is_timed(metric: str) -> bool:
    """Whether a metric varies by nature each time it is measured."""
    return any(word in metric for word in _TIMED)


def same_number(a: float | None, b: float | None) -> bool:
    """Whether a number and the same measured again agree."""
    return a == b or (a is not None and b is not None and math.isclose(a, b, rel_tol=TOLERANCE))


def differing_numbers(
    a: Mapping[str, Any], b: Mapping[str, Any]
) -> dict[str, tuple[float | None, float | None]]:
    """Metrics, times and speeds aside, in which two records disagree, with both values."""
    ours, theirs = numbers(a), numbers(b)
    return {
        name: (ours.get(name), theirs.get(name))
        for name in {**ours, **theirs}
        if not is_timed(name) and not same_number(ours.get(name), theirs.get(name))
    }


def set_aside(root: Path, file: Path) -> str:
    """Move a damaged file of a store to its `corrupt/`, and say where it is; where that fails it stays."""
    if root / "records" not in file.parents:
        return "it was left where it is"
    aside = root / "corrupt" / f"{file.parent.name}.{file.name}.{uuid.uuid4().hex[:8]}"
    try:
        with disk_errors(root):
            aside.parent.mkdir(parents=True, exist_ok=True)
            file.rename(aside)
    except (StoreError, OSError):
        return "it was left where it is"
    return f"it was moved to {aside}"
