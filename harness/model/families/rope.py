"""Rotary options of checkpoints, old style (rope_theta, rope_scaling) or new (rope_parameters), and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from harness.model.families.family import Family

_OPTIONS: dict[str, dict[str, str]] = {
    "linear": {"factor": "factor"},
    "dynamic": {"factor": "factor"},
    "llama3": {
        "factor": "factor",
        "low_freq_factor": "low_turns",
        "high_freq_factor": "high_turns",
        "original_max_position_embeddings": "original_length",
    },
    "yarn": {
        "factor": "factor",
        "original_max_position_embeddings": "original_length",
        "beta_fast": "fast",
        "beta_slow": "slow",
        "attention_factor": "attention_factor",
        "truncate": "whole_pairs",
    },
    "longrope": {
        "factor": "factor",
        "original_max_position_embeddings": "original_length",
        "short_factor": "short",
        "long_factor": "long",
        "attention_factor": "attention_factor",
    },
}
"""rope_type -> {its option: the option of position=rope_<type>}."""
_OLD_NAMES = {"su": "longrope"}
"""What early configs called a rope_type."""
METHODS = ("rope", *(f"rope_{kind}" for kind in _OPTIONS))
"""Position methods that a rotary family can express."""
_BASE = ("rope_type", "type", "rope_theta", "partial_rotary_factor", "mscale", "mscale_all_dim")


def rope_of(config: Mapping[str, Any], family: Family) -> dict[str, Any]:
    """The position choice of a config.

    Raises: IncompatibleError for a kind of scaling, or an option of one, that we do not have
    """
    parameters = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    kind = str(parameters.get("rope_type") or parameters.get("type") or "default")
    kind = _OLD_NAMES.get(kind, kind)
    base = (
        parameters.get("rope_theta") or config.get("rope_theta") or config.get("rotary_emb_base") or 10000.0
    )
    fraction = parameters.get("partial_rotary_factor") or config.get("partial_rotary_factor")
    fraction = fraction or config.get("rotary_pct") or 1.0
    plain = {"base": float(base), "fraction": float(fraction)}
    if kind == "default":
        return {"method": "rope", **plain}
    if kind not in _OPTIONS:
        raise family.refuse(f"rope_type={kind} (known: {', '.join(_OPTIONS)})")
    if kind in ("llama3", "yarn", "longrope"):
        longest, original = config["max_position_embeddings"], "original_max_position_embeddings"
        # What a config says beside its rotary options counts before what it says among them, as in Phi-3.
        parameters[original] = config.get(original) or parameters.get(original) or longest
        if kind == "longrope" and parameters.get("factor") is None:
            parameters["factor"] = max(1.0, longest / parameters[original])
    if kind == "dynamic":  # transformers stretches from max_position_embeddings, whatever this says
        parameters.pop("original_max_position_embeddings", None)
    if kind == "longrope" and not {"short_factor", "long_factor"} <= set(parameters):
        raise family.refuse("rope_type=longrope without long_factor and short_factor")
    unknown = set(parameters) - set(_OPTIONS[kind]) - set(_BASE)
    if unknown:
        raise family.refuse(f"rope_type={kind} and {', '.join(sorted(unknown))}")
    options = {
        ours: parameters[theirs]
        for theirs, ours in _OPTIONS[kind].items()
        if parameters.get(theirs) is not None
    }
    if kind == "yarn":
        options.setdefault("attention_factor", _temperature(parameters))
    return {"method": f"rope_{kind}", **plain, **options}


def _temperature(parameters: Mapping[str, Any]) -> float | None:
    """YaRN's factor on cosines and sines where a config gives it by two scales (DeepSeek); None where not."""
    one, all_dims = parameters.get("mscale"), parameters.get("mscale_all_dim")
    if not (one and all_dims):
        return None

    def scale(by: float) -> float:
        factor = float(parameters["factor"])
        return 0.1 * by * math.log(factor) + 1 if factor > 1 else 1.0

    return scale(one) / scale(all_dims)


def rope_config(position: Mapping[str, Any]) -> dict[str, Any]:
    """What a config says of a position choice: `rope_theta`, and `rope_parameters` where it is scaled."""
    base = position.get("base", 10000.0)
    kind = str(position["method"]).removeprefix("rope").removeprefix("_")
    if not kind:
        return {"rope_theta": base}
    options = {
        theirs: position[ours] for theirs, ours in _OPTIONS[kind].items() if position.get(ours) is not None
    }
    return {"rope_theta": base, "rope_parameters": {"rope_type": kind, "rope_theta": base, **options}}
