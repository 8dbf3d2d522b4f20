"""How long a sweep still takes and who makes what, read off the store; for whoever shows a sweep."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

from harness.run.execute import STEPS, read_steps
from harness.store import Store

Stages = Mapping[str, Mapping[str, Any]]
"""Stages by key as a manifest describes them: title, stage, inputs."""


class Pace:
    """What the store tells of a sweep's stages, one look after another.

    Units: seconds
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._took: dict[str, float] = {}
        """What the stages in the store took, by key."""

    def stored(self, stages: Stages) -> int:
        """How many of these stages are in the store."""
        for key in stages:
            artifact = None if key in self._took else self._store.find(key)
            if artifact is not None:
                self._took[key] = artifact.meta.get("seconds", 0.0)
        return len(self._took.keys() & stages.keys())

    def running(self, stages: Stages) -> dict[str, dict[str, Any]]:
        """Those that a process not known to be dead is making, on any machine: who has their claims."""
        claims = self._store.claims
        found = {key: claims.holder(key) for key in claims.names() if key in stages and claims.held(key)}
        return {key: holder for key, holder in found.items() if holder}

    def left(
        self, stages: Stages, *, asked: Iterable[str], running: Mapping[str, Mapping[str, Any]]
    ) -> float:
        """Until all that is asked for and what it rests on is made, as such stages took so far by the last
        `stored`; 0 where nothing tells."""
        took: dict[str, list[float]] = {}
        for key in self._took.keys() & stages.keys():
            for name in (stages[key]["title"], stages[key]["stage"], ""):
                took.setdefault(name, []).append(self._took[key])
        whole = {key: total for key in running if (total := self._whole(key, since(running[key])))}
        for key, total in whole.items():
            took.setdefault(stages[key]["title"], []).append(total)
        for key in (
            running.keys() & stages.keys() - whole.keys()
        ):  # others like it will take as long, at least
            took.setdefault(stages[key]["title"], [since(running[key])])
        left = 0.0
        for key in _with_inputs(stages, asked) - self._took.keys():
            about = stages[key]
            known = took.get(about["title"]) or took.get(about["stage"]) or took.get("") or [0.0]
            passed = since(running[key]) if key in running else 0.0
            left += max(0.0, whole.get(key, median(known)) - passed)
        return left / max(1, len(running))

    def _whole(self, key: str, passed: float) -> float:
        """What a running training will have taken, by its progress; 0 where it has told none."""
        steps = read_steps(self._store.root / "partial" / key / STEPS)
        progress = steps[-1][1].get("progress", 0.0) if steps else 0.0
        return passed / progress if progress else 0.0


def since(holder: Mapping[str, Any]) -> float:
    """Seconds for which a claim has been held; 0 where its holder's clock is ahead of ours."""
    return max(0.0, time.time() - float(holder.get("since", time.time())))


def duration(seconds: float) -> str:
    """A time for people."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def left_text(seconds: float) -> str:
    """What follows a count of stages, `, about 10 min left at this pace`; nothing where nothing is known."""
    return f", about {duration(seconds)} left at this pace" if seconds >= 1 else ""


def _with_inputs(stages: Stages, asked: Iterable[str]) -> set[str]:
    """These stages and all they rest on."""
    found: set[str] = set()
    waiting = list(asked)
    while waiting:
        key = waiting.pop()
        if key in stages and key not in found:
            found.add(key)
            waiting += stages[key]["inputs"].values()
    return found
