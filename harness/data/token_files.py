"""Token files: memory-mapped ids, one file a split and domain."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict
from urllib.parse import quote

import numpy as np

from harness.axes.corpus import Split
from harness.forms import misfit

INDEX = "index.json"
MAX_OPEN = 128
"""Files that a writer keeps open; a corpus may have more domains than a process may open files."""
LONGEST_NAME = 120
JOURNAL = "journal.json"


def safe_name(name: str) -> str:
    """A file name for any domain: letters, digits, `-_.~` and %XX; long ones end in a hash, and those with
    capitals, which some file systems take for small letters.
    """
    quoted = quote(name, safe="")
    if len(quoted) <= LONGEST_NAME and name == name.lower():
        return quoted
    return f"{quoted[:LONGEST_NAME]}.{hashlib.sha256(name.encode()).hexdigest()[:16]}"


class Entry(TypedDict):
    """The file of a domain in a split."""

    file: str
    num_tokens: int
    num_bytes: int
    num_documents: int


class TokenWriter:
    """Appends documents' ids to one file a split and domain; each document is `bos ids eos`."""

    def __init__(self, directory: Path, *, vocab_size: int, bos_id: int | None, eos_id: int) -> None:
        self.directory, self.vocab_size, self.eos_id = directory, vocab_size, eos_id
        self.dtype = np.dtype(np.uint16 if vocab_size <= 2**16 else np.uint32)
        self.head = [] if bos_id in (None, eos_id) else [bos_id]
        self.files: dict[str, Any] = {}
        """Open ones, the one longest unused first."""
        self.splits: dict[str, dict[str, Entry]] = {}

    def add(self, split: str, domain: str, ids: Sequence[int], *, num_bytes: int) -> None:
        """One document of `num_bytes` UTF-8 bytes."""
        domains = self.splits.setdefault(split, {})
        if domain not in domains:
            name = f"{split}.{safe_name(domain)}.bin"
            domains[domain] = {"file": name, "num_tokens": 0, "num_bytes": 0, "num_documents": 0}
        row = np.array([*self.head, *ids, self.eos_id], dtype=self.dtype)
        entry = domains[domain]
        self._file(entry["file"]).write(row.tobytes())
        entry["num_tokens"] += len(row)
        entry["num_bytes"] += num_bytes
        entry["num_documents"] += 1

    def _file(self, name: str) -> Any:
        """A domain's file, open to append; only so many are open at once."""
        file = self.files.pop(name, None)
        if file is None:
            if len(self.files) >= MAX_OPEN:
                oldest = self.files.pop(next(iter(self.files)))
                oldest.flush()
                os.fsync(oldest.fileno())
                oldest.close()
            file = (self.directory / name).open("ab")
        self.files[name] = file
        return file

    def save(self) -> None:
        """Make all that was added so far survive a kill; `resume` finds it."""
        for file in self.files.values():
            file.flush()
            os.fsync(file.fileno())
        temporary = self.directory / f".{JOURNAL}"
        temporary.write_text(json.dumps(self.splits), encoding="utf-8")
        temporary.replace(self.directory / JOURNAL)

    def resume(self) -> int:
        """Go on from what was saved in this directory; returns how many documents that were.

        What was written after is cut off; where a file is missing or too short, all begins anew.
        """
        saved: dict[str, dict[str, Entry]] = {}
        with contextlib.suppress(OSError, ValueError):  # a damaged journal is as good as none
            kept = json.loads((self.directory / JOURNAL).read_text(encoding="utf-8"))
            saved = {} if misfit(kept, dict[str, dict[str, Entry]]) else kept
        entries = [entry for domains in saved.values() for entry in domains.values()]
        sizes = {entry["file"]: entry["num_tokens"] * self.dtype.itemsize for entry in entries}
        found = {file.name: file for file in self.directory.glob("*.bin")}
        if any(name not in found or found[name].stat().st_size < size for name, size in sizes.items()):
            saved, entries, sizes = {}, [], {}
        for name, file in found.items():
            if name in sizes:
                os.truncate(file, sizes[name])
            else:
                file.unlink()
        self.splits = saved
        return sum(entry["num_documents"] for entry in entries)

    def move(self, directory: Path) -> None:
        """Close the files and give them their place, on the same file system."""
        for file in self.files.values():
            file.close()
        for domains in self.splits.values():
            for entry in domains.values():
                (self.directory / entry["file"]).replace(directory / entry["file"])
        self.files, self.directory = {}, directory

    def finish(self, split: Split) -> dict[str, np.ndarray]:
        """Close the files; all ids of each domain of a split, as read-only maps."""
        for file in self.files.values():
            file.close()
        return {
            domain: np.memmap(self.directory / entry["file"], dtype=self.dtype, mode="r")
            for domain, entry in sorted(self.splits[split.value].items())
        }

    def write_index(self, weights: Mapping[str, float]) -> None:
        """Write the index; `weights` are the shares of the training domains."""
        index = {
            "dtype": self.dtype.name,
            "vocab_size": self.vocab_size,
            "eos_id": self.eos_id,
            "weights": dict(weights),
            "splits": self.splits,
        }
        (self.directory / INDEX).write_text(json.dumps(index, indent=1, sort_keys=True) + "\n")


class TokenFiles:
    """The artifact of the tokens stage, memory-mapped.

    Units: `num_bytes` UTF-8 bytes of the documents, without the ends that were added
    """

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)
        self.index: dict[str, Any] = json.loads((self.directory / INDEX).read_text())
        self.vocab_size: int = self.index["vocab_size"]
        self.eos_id: int = self.index["eos_id"]
        self.weights: dict[str, float] = self.index["weights"]

    def domains(self, split: Split | str) -> list[str]:
        """Domains that have documents in a split, in alphabetical order."""
        return sorted(self.index["splits"].get(Split(split).value, {}))

    def tokens(self, split: Split | str, domain: str) -> np.ndarray:
        """All ids of one domain, as a read-only map."""
        entry = self.index["splits"][Split(split).value][domain]
        return np.memmap(self.directory / entry["file"], dtype=self.index["dtype"], mode="r")

    def num_tokens(self, split: Split | str) -> dict[str, int]:
        """Tokens of each domain of a split."""
        return {
            domain: self.index["splits"][Split(split).value][domain]["num_tokens"]
            for domain in self.domains(split)
        }

    def bytes_per_token(self, split: Split | str, domain: str) -> float:
        """UTF-8 bytes of text behind one stored token of a domain, on average."""
        entry = self.index["splits"][Split(split).value][domain]
        return float(entry["num_bytes"] / max(entry["num_tokens"], 1))
