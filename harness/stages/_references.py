"""Models that options refer to, loaded for the method that asked."""

from __future__ import annotations

from typing import Any

from harness.stage import Work


def referenced(work: Work, owner: str) -> dict[str, tuple[Any, Any]]:
    """(model, tokenizer) of each of the options of `owner` that refers to a model, by option."""
    found = {}
    for name, artifact in work.inputs.items():
        if name.startswith(f"{owner}."):
            from harness.model.artifact import load_model

            loaded = load_model(artifact, work.load, device=work.device)
            found[name.removeprefix(f"{owner}.")] = (loaded.model, loaded.tokenizer)
    return found
