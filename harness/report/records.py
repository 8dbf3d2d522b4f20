"""Where the records of a report come from: a store, the file beside a committed report, an archive."""

from __future__ import annotations

import os
import tarfile
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.errors import AbsentError, DataError, StoreError
from harness.report.compact import RECORDS, read_compact
from harness.report.copies import once_each
from harness.report.record import Record
from harness.store import archive
from harness.store.records import NAME, read_record, sweep_dir, sweep_name
from harness.store.records import records as stored


def store_root(store: object = None) -> Path:
    """The store's directory: a Store, a path, `$HARNESS_STORE`, or `.harness` here."""
    root = store if isinstance(store, str | Path) else getattr(store, "root", None)
    return Path(root or os.environ.get("HARNESS_STORE") or ".harness")


def read(
    store: object, experiment: str, *, cells: Iterable[str] | None = None, beside: Sequence[object] = ()
) -> list[Record]:
    """All records of an experiment, oldest first; `cells` keeps only those ids of the store.

    `store` may also be a compact file (`records.json.gz`). Those of every place `beside` it join: another
    store, a committed report or its file, an archive of `harness store export`. Of a record that several have
    the newest is read; the store itself may then have none.
    Raises: DataError if a place has none, naming the experiments that have some, or is damaged
    """
    root = store_root(store)
    experiment = sweep_name(experiment)
    found = read_compact(root) if is_compact(root) else read_folder(root, experiment)
    found = of_experiment(found, experiment)
    if cells is not None:
        wanted = set(cells)
        found = [r for r in found if r.cell in wanted]
    if not found and not beside:
        raise none_there(experiment, root, experiments(root))
    others = [record for place in beside for record in elsewhere(store_root(place), experiment)]
    found = sorted([*others, *found], key=lambda r: (r.finished, r.cell))
    return once_each(found) if beside else found


def none_there(experiment: str, place: Path, known: Sequence[str]) -> AbsentError:
    """The error of a place without records of an experiment."""
    begun = sweep_dir(place, experiment).is_dir()
    how = (
        f"No cell of it has ended yet: `harness watch {experiment}` shows how far it is"
        if begun
        else f"Run `harness sweep experiment={experiment}` first"
    )
    return AbsentError(
        f"There are no records of experiment '{experiment}' in {place}. With records: "
        f"{', '.join(known) or 'none'}. {how}, or name another store."
    )


def of_experiment(records: Iterable[Record], experiment: str) -> list[Record]:
    return [r for r in records if experiment in (r.experiment.get("name"), r.data.get("sweep"))]


def experiments(root: Path) -> list[str]:
    """Names of the sweeps that have records."""
    if root.is_file():
        return names_of(read_compact(root))
    return sorted(p.name for p in (root / "records").glob("*") if any(p.glob(f"*/{NAME}")))


def names_of(records: Iterable[Record]) -> list[str]:
    return sorted({str(r.experiment.get("name")) for r in records})


def is_compact(path: Path) -> bool:
    """Whether a path is meant as a file of records, there or not."""
    return path.suffix in (".gz", ".json")


def read_folder(root: Path, experiment: str) -> list[Record]:
    """Records below `<root>/records/<experiment>`, or of any sweep where that folder is absent.

    A damaged one is set aside and named; its cell is missing from the report.
    Raises: NewerFormatError
    """
    sweep = experiment if sweep_dir(root, experiment).is_dir() else None
    return [Record(data=data, folder=folder) for folder, data in stored(root, sweep=sweep)]


def elsewhere(place: Path, experiment: str) -> list[Record]:
    """Records of an experiment that lie in another store, a committed report or its file, or an archive.

    Raises: DataError where it is none of these, is damaged, or has none of the experiment
    """
    if (place / RECORDS).is_file():
        place = place / RECORDS
    if (place / "records").is_dir():
        found = of_experiment(read_folder(place, experiment), experiment)
        known = [] if found else experiments(place)
    elif place.is_file():
        everything = read_archive(place) if tarfile.is_tarfile(place) else read_compact(place)
        found, known = of_experiment(everything, experiment), names_of(everything)
    else:
        raise AbsentError(
            f"{place} holds no records; name a store, a committed report or its {RECORDS}, or an archive "
            "that `harness store export` wrote"
        )
    if not found:
        raise none_there(experiment, place, known)
    return found


def read_archive(source: Path) -> list[Record]:
    """The records of an archive, with their samples; its artifacts stay packed.

    Raises: DataError where it is no archive of `harness store export`, or damaged
    """
    with tempfile.TemporaryDirectory() as tmp:
        try:
            archive.unpack_records(source, Path(tmp))
            folders = [file.parent for file in sorted(Path(tmp).glob(f"records/*/*/{NAME}"))]
            found = [Record(data=read_record(folder), folder=folder) for folder in folders]
            return [record.in_memory() for record in found]
        except (StoreError, DataError) as error:
            raise DataError(f"{source}: {str(error).replace(f'{tmp}/', '')}") from error
