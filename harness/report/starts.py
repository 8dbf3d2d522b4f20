"""What the runs of a report began from: models that seeds share, and a checkpoint from outside."""

from __future__ import annotations

from pathlib import Path

from harness.report.frames import Results
from harness.report.runs import training


def shared_models(results: Results) -> list[str]:
    """Training stages that ran once for all seeds of some configuration, and were not all there is."""
    found: dict[str, None] = {}
    for levels, by_seed in results.records.items():
        if len(by_seed) < 2 or not results.replicated(levels):
            continue
        runs: dict[str, set[str]] = {}
        trained = {stage for record in by_seed.values() for stage in training(record.data)}
        for record in by_seed.values():
            for stage in record.data.get("stages", ()):
                runs.setdefault(str(stage["stage"]), set()).add(str(stage.get("key")))
        found |= {stage: None for stage, keys in runs.items() if stage in trained and len(keys) == 1}
    return list(found)


def given_model(results: Results) -> str:
    """Name of the checkpoint from outside that all began from; empty where a model was built here."""
    paths = {str((r.data["config"].get("model") or {}).get("path") or "") for r in results.all_records()}
    return Path(paths.pop()).name if len(paths) == 1 else ""
