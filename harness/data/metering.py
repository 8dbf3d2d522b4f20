"""Counts how much of files has been read, for whoever shows progress."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO


@dataclass
class Meter:
    """How far the files that are opened within `metered` have been read."""

    bytes: int = 0
    """As they lie on disk."""


_METER: ContextVar[Meter | None] = ContextVar("meter", default=None)


@contextlib.contextmanager
def metered(meter: Meter) -> Iterator[None]:
    """What is read of files in this block counts."""
    token = _METER.set(meter)
    try:
        yield
    finally:
        _METER.reset(token)


class _Metered(io.FileIO):
    """A file that counts what is read of it."""

    meter: Meter

    def readinto(self, buffer: Any) -> int:
        number = super().readinto(buffer) or 0
        self.meter.bytes += number
        return number


def opened(path: Path) -> BinaryIO:
    """A file as it lies on disk, counted by the meter in force."""
    meter = _METER.get()
    if meter is None:
        return path.open("rb")
    file = _Metered(str(path), "rb")
    file.meter = meter
    return io.BufferedReader(file)


def count(num_bytes: float) -> None:
    """Count what was read another way."""
    if (meter := _METER.get()) is not None:
        meter.bytes += round(num_bytes)
