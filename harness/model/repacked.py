"""An exported directory whose packed layers stay packed, in a layout of another library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness.axes.quantizer import PackedLayout, Quantizer
from harness.errors import IncompatibleError
from harness.model.artifact import Loaded, restore
from harness.ops.packed_linear import PackedLinear

WEIGHTS = "model.safetensors"


def packed_layers(loaded: Loaded, layout: str) -> tuple[Quantizer, dict[str, PackedLinear]]:
    """The quantizer of a packed model and its layers by name.

    Raises: IncompatibleError where it has no such layout, saying which, or the layout lacks what runs besides
    """
    entries = [entry for entry in loaded.applied if entry["axis"] in ("quantizer", "rotation")]
    if not loaded.packed or not entries:
        raise IncompatibleError(
            f"--layout {layout}: the model is not packed; leave --layout out, or export a cell with a "
            "quantizer"
        )
    method: Quantizer = restore(entries[-1]).build()
    known = list(method.layouts())
    if layout not in known:
        has = f"it has {', '.join(known)}" if known else "no library's layout holds what it stores"
        raise IncompatibleError(
            f"--layout {layout}: quantizer={method.name} cannot be written so: {has}; without --layout its "
            "weights are written unpacked"
        )
    if any(entry["axis"] == "rotation" for entry in entries):
        raise IncompatibleError(
            f"--layout {layout} cannot say that the model is rotated as it runs; export it unpacked (without "
            "--layout), or use rotation=none"
        )
    layers = {n: m for n, m in loaded.model.named_modules() if isinstance(m, PackedLinear)}
    return method, layers


def repack(
    folder: Path, method: Quantizer, layers: Mapping[str, PackedLinear], layout: str, *, source: Any
) -> PackedLayout:
    """Put packed layers into a directory in which they were written unpacked; `source` is the model's config.

    Raises: IncompatibleError for a layer that the directory stores in another order or under no one name
    """
    from safetensors.torch import load_file, save_file

    if not (folder / WEIGHTS).is_file():
        raise IncompatibleError(
            f"--layout {layout}: the weights are written in several files; export without --layout"
        )
    tensors = load_file(folder / WEIGHTS)
    config = json.loads((folder / "config.json").read_text())
    names = names_in(config["model_type"], source, layers)
    for name, layer in layers.items():
        stored = tensors.pop(f"{names[name]}.weight", None)
        weight = layer.dequantize().cpu()
        if stored is None or stored.shape != weight.shape or not torch.equal(stored, weight.to(stored.dtype)):
            raise IncompatibleError(
                f"--layout {layout}: a {config['model_type']} model stores {names[name]} in another form "
                "than it was packed in (transposed, in another order, or fused with others); export it "
                "unpacked (without --layout)"
            )
    renamed = {names[name]: layer for name, layer in layers.items()}
    laid_out = method.lay_out(renamed, layout, skipped=dense_layers(folder, renamed))
    for name, parts in laid_out.tensors.items():
        tensors |= {f"{name}.{part}": tensor.cpu().contiguous() for part, tensor in parts.items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    config["quantization_config"] = laid_out.config
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    return laid_out


def names_in(model_type: str, source: Any, layers: Mapping[str, PackedLinear]) -> dict[str, str]:
    """The names of layers in an exported directory: those of the model's family for ours, else the same."""
    if not hasattr(source, "model_spec") or model_type == source.model_type:
        return {name: name for name in layers}
    from harness.model.families import family

    rules = family(model_type).rules(source.model_spec(), source.methods)
    theirs = {rule.ours[0]: rule.theirs for rule in rules if len(rule.ours) == 1}
    return {n: theirs.get(f"{n}.weight", f"{n}.weight").removesuffix(".weight") for n in layers}


def dense_layers(folder: Path, packed: Mapping[str, Any]) -> list[str]:
    """Linear layers of an exported model that are not packed, its head for one."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    return [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and n not in packed]
