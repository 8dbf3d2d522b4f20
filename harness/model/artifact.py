"""Model artifacts: a base, what was done to it in order, and how to have the model again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from harness.compose.typed import instance
from harness.errors import DataError, IncompatibleError
from harness.method import Choice
from harness.model import register
from harness.model.whole import read_whole
from harness.nodes import plain
from harness.ops.experts import unfuse_experts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from harness.stage import Work
    from harness.store.artifacts import Artifact

MANIFEST = "model.json"
PACKED = "packed.safetensors"
ADAPTER = "adapter"

Load = Callable[[str], "Artifact"]


class Delta(StrEnum):
    """What an artifact stores beyond its base."""

    none = "none"
    """Nothing: a train-free method is applied again when the artifact is loaded."""
    weights = "weights"
    """All weights, as `save_pretrained` writes them, and the adapter that could not be merged, if there is
    one; the base is only its history."""
    adapter = "adapter"
    """An adapter in PEFT's own format, in `adapter/`."""
    packed = "packed"
    """Quantized weights, and the adapter that could not be merged, if there is one."""


@dataclass(kw_only=True)
class Loaded:
    """A model as an artifact describes it, with what a further stage must know of it."""

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    base: dict[str, str]
    """Where it came from: {"key": ...}, {"path": ...} or {"hub": ...}."""
    applied: list[dict[str, Any]] = field(default_factory=list)
    """Everything done to it, in order: {axis, method, config}."""
    tokenizer_from: str = ""
    """Key of the tokenizer's artifact, or the directory of a pretrained model."""
    template: bool = False
    """Whether prompts go through the chat template (set by instruction tuning)."""
    packed: bool = False
    adapter: Choice | None = None
    """The method whose adapter is on the model unmerged, if any."""
    adapter_base: dict[str, str] = field(default_factory=dict)
    """What the unmerged adapter stands on."""
    adapter_path: Path | None = None
    before_packing: Callable[[], nn.Module] | None = None
    """Gives the packed model as it was when it was packed; None where it is not packed."""

    def save(self, out: Path, *, delta: str, applied: Sequence[Choice] = ()) -> None:
        """Write what a stage made of the model, and what it `applied` beside what was before; an adapter that
        was left off lies with the weights."""
        save_model(
            out,
            self.model,
            base=self.base,
            delta=delta,
            applied=[*self.applied, *map(describe, applied)],
            tokenizer=self.tokenizer_from,
            template=self.template,
            adapter=self.adapter,
            adapter_path=self.adapter_path,
        )

    def prompt(self, text: str) -> str:
        """A prompt as the applied methods want it (control tokens, hints), in order."""
        for entry in self.applied:
            text = restore(entry).build().prompt(text)
        return text


def describe(choice: Choice) -> dict[str, Any]:
    """A choice as JSON, the form it takes in `applied`."""
    return {"axis": choice.axis, "method": choice.method.name, "config": plain(choice.config)}


def restore(entry: Mapping[str, Any]) -> Choice:
    """The choice that `describe` wrote; options are checked again.

    Raises: UnknownNameError or PluginError where the method is not installed
    """
    from harness.registry.known import registry

    axis = entry["axis"]
    method = registry().get(axis, entry["method"])
    return Choice(axis=axis, method=method, config=instance(method.Config, entry["config"], where=axis))


def save_model(
    out: Path,
    model: nn.Module | None,
    *,
    base: Mapping[str, str],
    delta: str,
    applied: list[dict[str, Any]],
    tokenizer: str,
    template: bool = False,
    adapter: Choice | None = None,
    adapter_path: Path | None = None,
) -> None:
    """Write a model artifact.

    `adapter` is the method whose adapter `model` carries (delta `adapter`); `adapter_path` an adapter's
    directory to copy beside weights, packed or not, that it stands on.
    """
    kind = Delta(delta)
    manifest = {
        "format": 1,
        "base": dict(base),
        "delta": kind.value,
        "applied": applied,
        "tokenizer": tokenizer,
        "template": template,
        "adapter": None if adapter is None else describe(adapter),
    }
    out.mkdir(parents=True, exist_ok=True)
    if kind is Delta.weights:
        assert model is not None
        model.save_pretrained(out)  # type: ignore[operator]
    elif kind is Delta.adapter:
        assert model is not None
        assert adapter is not None
        adapter.build().save(model, out / ADAPTER)
    elif kind is Delta.packed:
        assert model is not None
        _save_packed(out, model)
    if kind in (Delta.weights, Delta.packed) and adapter_path is not None:
        shutil.copytree(adapter_path, out / ADAPTER)
    (out / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")


def load_model(
    artifact: Artifact | Path,
    load: Load,
    *,
    device: str = "cpu",
    merge: bool = True,
    trainable: bool = False,
    adapters: bool = True,
    dtype: str | None = None,
) -> Loaded:
    """The model of an artifact: its base, then everything applied, in order.

    `merge` folds an adapter into unpacked weights where its method allows; `trainable` loads the
    adapter's parameters requiring gradients; `adapters=False` leaves the last unmerged adapter off;
    `dtype` is torch's name of the format of parameters (None: as stored), while buffers, as frequencies of
    rotary positions and scales of packed weights are, keep theirs.
    Raises: DataError where the directory holds no model of ours
    """
    path = artifact if isinstance(artifact, Path) else artifact.path
    if not (path / MANIFEST).exists():
        return _cast(load_pretrained(str(path), device=device), dtype)
    manifest = json.loads((path / MANIFEST).read_text())
    kind, applied = Delta(manifest["delta"]), manifest["applied"]
    here = {"path": str(path)} if isinstance(artifact, Path) else {"key": artifact.key}
    if kind in (Delta.none, Delta.adapter):
        loaded = _load_base(manifest["base"], load)
        own = applied[len(loaded.applied) :]
    else:
        model = _read_weights(path) if kind is Delta.weights else _read_packed(path, applied)
        loaded = Loaded(model=model, tokenizer=_tokenizer(manifest["tokenizer"], load), base=here)
        loaded.packed = kind is Delta.packed
        if loaded.packed:
            loaded.before_packing = partial(_before_packing, manifest, load)
        own = applied
    for entry in own:
        if entry["axis"] == "context":
            loaded.model = restore(entry).build().apply(loaded.model)
    if manifest["adapter"] is not None:
        _put_adapter(loaded, manifest, path, here, merge=merge, trainable=trainable, adapters=adapters)
    loaded.base, loaded.applied, loaded.template = here, applied, manifest["template"]
    loaded.tokenizer_from = manifest["tokenizer"]
    loaded.model.to(device)
    loaded.model.eval()
    return _cast(loaded, dtype)


def _cast(loaded: Loaded, dtype: str | None) -> Loaded:
    if dtype is not None:
        for parameter in loaded.model.parameters():
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(getattr(torch, dtype))
    return loaded


def load_pretrained(path: str, *, device: str = "cpu") -> Loaded:
    """Any Hugging Face causal model by directory, or by hub name where the network is allowed.

    Raises: DataError naming the directory and what is missing in it, weights too
    """
    local = Path(path).exists()
    if local and not (Path(path) / "config.json").exists():
        raise DataError(f"model.path={path} has no config.json; give a directory that save_pretrained wrote")
    try:
        register()
        model = read_whole(path)
    except (OSError, ValueError, DataError) as error:
        raise DataError(f"model.path={path} cannot be read as a causal model: {error}") from error
    tokenizer = _pretrained_tokenizer(path)
    model.to(device)
    model.eval()
    return Loaded(
        model=model,
        tokenizer=tokenizer,
        base={"path" if local else "hub": path},
        tokenizer_from=path,
        template=bool(tokenizer.chat_template),
    )


def open_model(work: Work, *, merge: bool = True, trainable: bool = False, adapters: bool = True) -> Loaded:
    """The model a stage works on: its input artifact, else the cell's `model.path`.

    Raises: IncompatibleError where the cell has neither
    """
    artifact = work.inputs.get("model")
    if artifact is not None:
        return load_model(
            artifact, work.load, device=work.device, merge=merge, trainable=trainable, adapters=adapters
        )
    if work.model_path is None:
        raise IncompatibleError(
            f"stage {work.stage} has no model; put pretrain before it or set model=pretrained model.path=DIR"
        )
    return load_pretrained(work.model_path, device=work.device)


def open_dense(work: Work, *, what: str, merge: bool = True) -> Loaded:
    """The model of a stage that changes its weights: an adapter is merged where it can be, else left off.

    Raises: IncompatibleError where the weights are packed; `what` names the method (`pruner=wanda`)
    """
    loaded = open_model(work, merge=merge, adapters=False)
    if loaded.packed:
        raise IncompatibleError(
            f"{what}: the model is packed already; put {work.stage} before the stage that packs it"
        )
    return loaded


def _load_base(base: Mapping[str, str], load: Load) -> Loaded:
    if "key" in base:
        return load_model(load(base["key"]), load)
    if "path" in base:
        return load_model(Path(base["path"]), load)
    return load_pretrained(base["hub"])


def _put_adapter(
    loaded: Loaded,
    manifest: Mapping[str, Any],
    path: Path,
    here: dict[str, str],
    *,
    merge: bool,
    trainable: bool,
    adapters: bool,
) -> None:
    choice = restore(manifest["adapter"])
    loaded.adapter_base = manifest["base"] if manifest["delta"] == Delta.adapter else here
    loaded.adapter_path = path / ADAPTER
    mergeable = choice.method.mergeable and not loaded.packed  # type: ignore[attr-defined]
    if not adapters and not (merge and mergeable):
        loaded.adapter = choice
        return
    method = choice.build()
    loaded.model = method.load(loaded.model, path / ADAPTER, trainable=trainable)
    if merge and mergeable:
        loaded.model = method.merge(loaded.model)
        loaded.adapter_path, loaded.adapter_base = None, {}
    else:
        loaded.adapter = choice


def _tokenizer(source: str, load: Load) -> PreTrainedTokenizerBase:
    from harness.data.tokenization import load_tokenizer

    if not Path(source).is_absolute():
        return load_tokenizer(load(source).path)
    return _pretrained_tokenizer(source)


def _pretrained_tokenizer(source: str) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except Exception as error:  # the tokenizers library raises no narrower type
        raise DataError(f"model.path={source}: its tokenizer cannot be read: {error}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer  # type: ignore[no-any-return]


def _read_weights(path: Path) -> nn.Module:
    from transformers import AutoModelForCausalLM

    register()
    return AutoModelForCausalLM.from_pretrained(path)  # type: ignore[no-any-return]


def _save_packed(out: Path, model: nn.Module) -> None:
    from safetensors.torch import save_file

    seen: set[tuple[int, tuple[int, ...], str]] = set()
    tensors = {}
    for name, tensor in model.state_dict().items():
        identity = (tensor.data_ptr(), tuple(tensor.shape), str(tensor.dtype))
        if identity not in seen or tensor.numel() == 0:  # a tied weight is stored once
            tensors[name] = tensor.contiguous()
        seen.add(identity)
    save_file(tensors, out / PACKED)
    model.config.save_pretrained(out)  # type: ignore[union-attr,operator]


def _before_packing(manifest: Mapping[str, Any], load: Load) -> nn.Module:
    """The weights that an artifact packed, in the layout in which it did."""
    base = _load_base(manifest["base"], load)
    for entry in manifest["applied"][len(base.applied) :]:
        if entry["axis"] == "rotation":
            base.model = restore(entry).build().rotate(base.model)
    unfuse_experts(base.model)
    return base.model


def _read_packed(path: Path, applied: list[dict[str, Any]]) -> nn.Module:
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    register()
    tensors = load_file(path / PACKED)
    with no_init_weights():
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(path))
    last = max(i for i, e in enumerate(applied) if e["axis"] == "quantizer")
    for entry in applied[max(0, last - 1) : last + 1]:
        if entry["axis"] in ("rotation", "quantizer"):
            model = restore(entry).build().empty(model)
    missing, unexpected = model.load_state_dict(tensors, strict=False, assign=True)
    model.tie_weights()
    tied = set(getattr(model, "_tied_weights_keys", None) or ())
    lost = [name for name in missing if name not in tied]
    if lost or unexpected:
        raise DataError(
            f"{path / PACKED} does not fit its model: missing {lost[:3]}, unknown {unexpected[:3]}"
        )
    return model  # type: ignore[no-any-return]
