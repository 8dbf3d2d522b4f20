"""What an exported directory must say of extended positions, and the proof that it reads as was evaluated."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn

from harness.axes.quantizer import PackedLayout
from harness.errors import IncompatibleError
from harness.model import register
from harness.model.artifact import Loaded, restore
from harness.ops.decode import last_logits
from harness.ops.extension import LOCAL, Rotary
from harness.ops.packed_linear import replace_module
from harness.ops.rotary import inverse_frequencies

PROBE = 48
"""Tokens that are compared, and tokens beyond the trained length."""
LONGEST = 16384
"""Tokens of the longest sequence that is compared."""


def rope_parameters(loaded: Loaded) -> dict[str, Any] | None:
    """transformers' `rope_parameters` of a model whose context was extended; None where it was not.

    Raises: IncompatibleError where no config says what the context method does
    """
    chosen = [restore(entry) for entry in loaded.applied if entry["axis"] == "context"]
    if not chosen:
        return None
    config: Any = loaded.model.config
    stated = _stated(config)
    if stated.get("rope_type", "default") != "default" or len(chosen) > 1:
        raise _unsayable(chosen[-1].method.name, " on top of another scaling of positions")
    base = float(stated.get("rope_theta", 10000.0))
    width = int(stated.get("rotary_dim") or _rotated(config, stated))
    rotary = Rotary(
        inv_freq=inverse_frequencies(width, base),
        base=base,
        head_dim=width,
        max_length=int(config.trained_length),
    )
    found: dict[str, Any] | None = chosen[0].build().rope_parameters(rotary)
    if found is None:
        raise _unsayable(chosen[0].method.name, "")
    kept = {name: stated[name] for name in ("partial_rotary_factor",) if name in stated}
    return {**kept, **found}


def _unsayable(name: str, more: str) -> IncompatibleError:
    return IncompatibleError(
        f"no Hugging Face config says what context={name} does{more}, so an export would not be "
        "what was evaluated; export a record of the same cell without it (context=none)"
    )


def _stated(config: Any) -> dict[str, Any]:
    """What a config says of its rotary positions; ours says it by its methods."""
    if hasattr(config, "model_spec"):
        position = config.methods["position"]
        scaling = str(position["method"]).removeprefix("rope").removeprefix("_")
        fraction = position.get("fraction", 1.0)
        partly = {} if fraction == 1 else {"partial_rotary_factor": fraction}
        return {"rope_theta": position.get("base", 10000.0), "rope_type": scaling or "default", **partly}
    found = getattr(config, "rope_parameters", None)
    if not isinstance(found, dict):
        return {}
    far = _far(found)
    return dict(found[far[0]] if far else found)


def _far(parameters: Mapping[str, Any]) -> list[str]:
    """Types of layers that read far, which a context method changes, where they stand apart (Gemma 3)."""
    by_type = [name for name, value in parameters.items() if isinstance(value, Mapping)]
    return [name for name in by_type if name != LOCAL] or by_type


def _rotated(config: Any, stated: dict[str, Any]) -> int:
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(head_dim * stated.get("partial_rotary_factor", 1.0))


def state_positions(folder: Path, parameters: dict[str, Any], *, trained: int) -> None:
    """Put the parameters into a written config.json.

    Where transformers follows the length itself, `max_position_embeddings` is the trained length.
    """
    file = folder / "config.json"
    config = json.loads(file.read_text())
    for old in ("rope_theta", "rope_scaling", "trained_length"):
        config.pop(old, None)
    far = _far(config.get("rope_parameters") or {})
    by_type = {**config["rope_parameters"], **dict.fromkeys(far, parameters)} if far else parameters
    config["rope_parameters"] = by_type
    if "head_dim" in config and config["head_dim"] is None:  # which some kinds of scaling multiply
        config["head_dim"] = config["hidden_size"] // config["num_attention_heads"]
    if parameters["rope_type"] == "dynamic":
        config["max_position_embeddings"] = trained
    if parameters["rope_type"] == "longrope":
        config["original_max_position_embeddings"] = trained
    file.write_text(json.dumps(config, indent=2) + "\n")


def _read(folder: Path, device: torch.device, layout: PackedLayout | None) -> Any:
    """A model directory by transformers; packed layers are placed as they are read, not moved afterwards."""
    from transformers import AutoModelForCausalLM

    if layout is None:
        return AutoModelForCausalLM.from_pretrained(folder).to(device)
    model = AutoModelForCausalLM.from_pretrained(folder, device_map={"": device})
    if layout.weight_of is not None:
        for name in layout.tensors:
            read: Any = model.get_submodule(name)
            dense = nn.Linear(read.in_features, read.out_features, bias=False, device=device)
            dense.weight = nn.Parameter(layout.weight_of(read).to(model.dtype), requires_grad=False)
            dense.bias = read.bias
            replace_module(model, name, dense)
    return model


@torch.no_grad()
def compare(
    model: Any,
    folder: Path,
    *,
    adapter: Path | None = None,
    method: str = "",
    layout: PackedLayout | None = None,
) -> None:
    """Read a written directory again, with an adapter of `method`, and compare logits, within and beyond the
    trained length; `layout` is that of its packed layers.

    Raises: IncompatibleError where they differ by more than rounding, or transformers refuses the config or
    peft the adapter
    """
    register()
    try:
        again = _read(folder, model.device, layout).eval()
    except (
        StrictDataclassError,
        KeyError,
        TypeError,
        ValueError,
    ) as error:  # the family takes no such config
        raise IncompatibleError(
            f"transformers refuses the config of what was evaluated ({error}); nothing was written"
        ) from error
    if adapter is not None:
        again = with_adapter(again, adapter, method).eval()
    trained = int(getattr(model.config, "trained_length", None) or 0)
    stated = getattr(model.config, "max_position_embeddings", None) or PROBE
    lengths = {min(PROBE, stated)} | ({min(trained + PROBE, stated, LONGEST)} if trained else set())
    for length in sorted(lengths):
        expected, found = (_logits(each, length) for each in (model.eval(), again))
        apart = float((expected - found).abs().max() / expected.abs().max())
        if not apart < (1e-3 if model.dtype is torch.float32 else 2e-2):
            raise IncompatibleError(
                f"the exported model does not read as the evaluated one: over {length} tokens its logits "
                f"differ by {apart:.2g} of their size; nothing was written"
            )


def with_adapter(model: Any, adapter: Path, method: str) -> Any:
    """The model with an adapter on it, by the peft library.

    Raises: IncompatibleError where that library cannot read it
    """
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(model, adapter)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise IncompatibleError(
            f"the peft library cannot put the adapter of peft={method} on the exported base "
            f"({type(error).__name__}: {error}), and it cannot be merged; nothing was written"
        ) from error


def _logits(model: Any, length: int) -> Tensor:
    """Logits of the last tokens of an arbitrary sequence."""
    ids = torch.arange(length, device=model.device)[None] * 7 % model.config.vocab_size
    logits: Tensor = model(input_ids=ids, use_cache=False, **last_logits(model, PROBE)).logits
    return logits[:, -PROBE:].float()
