"""Hugging Face checkpoints into our transformer and back; all of a checkpoint is read, or nothing."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import torch
from torch import Tensor

from harness.errors import DataError, IncompatibleError
from harness.forms import misfit
from harness.method import Choice
from harness.model import config_file
from harness.model.choices import from_plain
from harness.model.families import NAMES, family
from harness.model.families.family import Family, Rule
from harness.model.gguf import gguf_config, is_gguf
from harness.model.transformer import LanguageModel
from harness.spec import ModelSpec

if TYPE_CHECKING:
    from harness.model.hf import HarnessForCausalLM


def describe(path: Path) -> tuple[ModelSpec, dict[str, Choice]]:
    """Shape and methods of a checkpoint directory; reads its config only.

    Raises: DataError without a config.json, UnknownNameError for a family that is not known
    """
    config = read_config(path)
    spec, methods = family(config["model_type"]).read_config(config)
    return spec, from_plain(methods)


def import_checkpoint(
    path: Path, *, dtype: torch.dtype | None = None, replace: Mapping[str, Choice] | None = None
) -> HarnessForCausalLM:
    """Our transformer with the weights of a Hugging Face checkpoint (safetensors, sharded or not).

    `replace` puts other methods in place of the checkpoint's; they must have the same parameters.

    Units: `dtype` None keeps the checkpoint's, the widest where its tensors differ
    Raises: DataError naming every missing, unknown or misshapen tensor, before any is loaded
    """
    from harness.model.choices import to_plain
    from harness.model.hf import HarnessConfig, HarnessForCausalLM

    config = read_config(path)
    source = family(config["model_type"])
    spec, methods = source.read_config(config)
    choices = {**from_plain(methods), **(replace or {})}
    shards = TensorFiles(path, source)
    spec = untied(spec, list(source.rules(spec, methods)), shards)
    with torch.device("meta"):
        shapes = {name: p.shape for name, p in LanguageModel(spec, choices).named_parameters()}
    rules = list(source.rules(spec, methods))
    _check(path, rules, shards, shapes, source, replaced=replace or {})
    kept = {key: config[key] for key in _GENERATION if config.get(key) is not None}
    model: HarnessForCausalLM = HarnessForCausalLM(
        HarnessConfig.of(spec, to_plain(choices), imported_from=source.model_type, **kept), choices=choices
    )
    state = {}
    for rule in rules:
        for name, tensor in zip(rule.ours, rule.split(shards.read(rule.theirs)), strict=True):
            state[name] = tensor
    kind = dtype if dtype is not None else reduce(torch.promote_types, (t.dtype for t in state.values()))
    model.to(kind)  # buffers of positions keep their precision
    result = model.load_state_dict(state, strict=False)
    unexpected, missing = result.unexpected_keys, set(result.missing_keys) - {"lm_head.weight"}
    assert not unexpected, unexpected
    assert not missing, missing
    model.tie_weights()
    model.eval()
    return model


def untied(spec: ModelSpec, rules: list[Rule], shards: TensorFiles) -> ModelSpec:
    """The shape with a head of its own where a checkpoint that ties it holds another one than its embedding.

    transformers keeps both then, as should whoever reads all of a checkpoint.
    """
    head = next((name for name in HEADS if name in shards), None)
    embedding = next(rule.theirs for rule in rules if rule.ours == ("model.embed_tokens.weight",))
    if not spec.tie_embeddings or head is None or embedding not in shards:
        return spec
    same = shards.shape(head) == shards.shape(embedding)
    if same and torch.equal(shards.read(head), shards.read(embedding)):
        return spec
    return dataclasses.replace(spec, tie_embeddings=False)


HEADS = ("lm_head.weight", "embed_out.weight")
"""Names of output heads."""
_GENERATION = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")


def export_checkpoint(model: HarnessForCausalLM, out: Path, *, model_type: str | None = None) -> str:
    """Write a model of ours as a checkpoint of a Hugging Face family; returns the family.

    Without `model_type`, the family it was imported from, else the first that can express it.

    Raises: IncompatibleError saying, for each family, what it cannot express
    """
    from safetensors.torch import save_file

    spec, methods = model.config.model_spec(), model.config.methods
    origin = getattr(model.config, "imported_from", None)
    only = model_type or origin
    names: tuple[str, ...] = NAMES if only is None else (str(only),)
    reasons = []
    for name in names:
        try:
            target, config = family(name), family(name).write_config(spec, methods)
        except IncompatibleError as error:
            reasons.append(str(error))
            continue
        state, rules = model.state_dict(), list(target.rules(spec, methods))
        left = set(state) - {ours for rule in rules for ours in rule.ours}
        left -= {"lm_head.weight"} if spec.tie_embeddings else set()
        if left:
            reasons.append(f"the {name} family has no place for {', '.join(sorted(left)[:3])}")
            continue
        tensors = {
            rule.theirs: rule.join(*(state[ours].detach().cpu() for ours in rule.ours)).contiguous()
            for rule in rules
        }
        out.mkdir(parents=True, exist_ok=True)
        kept = {key: getattr(model.config, key, None) for key in _GENERATION}
        config |= {key: value for key, value in kept.items() if value is not None}
        config |= {"model_type": name, "architectures": [target.architecture]}
        config["torch_dtype"] = str(model.dtype).removeprefix("torch.")
        (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
        return name
    raise IncompatibleError("no Hugging Face family can express this model: " + "; ".join(reasons))


def converted(path: Path, *, replace: Mapping[str, Choice], root: Path) -> Path:
    """A directory of our own format with a checkpoint's weights and tokenizer; made once below `root`.

    State: `root/imports/<digest of the checkpoint's content, this code and the replaced methods>`
    """
    from harness.model.choices import plain_node
    from harness.store.external import directory_hash
    from harness.store.fingerprint import Fingerprints

    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else []
    cache = root / "cache"
    content = directory_hash(path, cache=cache / "contents.json")
    code = Fingerprints(cache / "fingerprints.json").of([__name__]).sha256
    changed = {axis: plain_node(choice) for axis, choice in sorted(replace.items())}
    digest = hashlib.sha256(json.dumps([content, code, changed]).encode()).hexdigest()[:16]
    out = root / "imports" / digest
    if out.is_dir():
        return out
    model = import_checkpoint(path, replace=replace)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as name:
        draft = Path(name) / "model"
        model.save_pretrained(draft)
        for file in files:
            if file.suffix not in (".safetensors", ".bin") and file.name not in _WEIGHT_FILES:
                shutil.copy(file, draft / file.name)
        if not out.is_dir():
            draft.rename(out)
    return out


_WEIGHT_FILES = ("config.json", "model.safetensors.index.json", "pytorch_model.bin.index.json")


def read_config(path: Path) -> dict[str, Any]:
    """config.json of a checkpoint directory, or what it would say of a GGUF."""
    if is_gguf(path):
        return gguf_config(path)
    config = config_file.read(Path(path))
    if "model_type" not in config:
        file = Path(path) / config_file.NAME
        raise DataError(f"{file} states no model_type; it is not the config of a Hugging Face checkpoint")
    return config


class _Index(TypedDict):
    """model.safetensors.index.json."""

    weight_map: dict[str, str]


def _shards(index: Path) -> list[str]:
    """The files that an index names.

    Raises: DataError where it is none, or names files elsewhere
    """
    try:
        found = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{index} cannot be read as JSON: {error}") from error
    if wrong := misfit(found, _Index):
        raise DataError(f"{index} is no index of safetensors: {wrong}")
    names = sorted(set(found["weight_map"].values()))
    for name in names:
        if Path(name).name != name:
            raise DataError(f"{index} names {name}, which is no file beside it")
    return names


class TensorFiles:
    """The safetensors files of a directory, by tensor name."""

    def __init__(self, path: Path, source: Family) -> None:
        from safetensors import SafetensorError, safe_open

        index, single = path / "model.safetensors.index.json", path / "model.safetensors"
        if single.is_file():  # as transformers has it, where both are there
            names = [single.name]
        elif index.is_file():
            names = _shards(index)
        else:
            pickled = ", ".join(sorted(file.name for file in path.glob("*.bin"))[:3])
            found = f"holds {pickled}, which is pickled and" if pickled else "holds no weights and"
            raise DataError(
                f"{path} {found} cannot be read: neither model.safetensors nor its index is there. "
                "Convert it where you trust its source: AutoModelForCausalLM.from_pretrained(DIR)"
                ".save_pretrained(NEW_DIR) writes safetensors, then give NEW_DIR"
            )
        self.files: dict[str, Any] = {}
        for name in names:
            try:
                handle = safe_open(path / name, framework="pt")
            except (SafetensorError, OSError) as error:
                raise DataError(f"{path / name} cannot be read as safetensors: {error}") from error
            for key in list(handle.keys()):  # type: ignore[no-untyped-call]
                if key in self.files:
                    raise DataError(f"{path}: {key} stands in {name} and in another of its files")
                self.files[key] = handle
        if source.prefix and not any(key.startswith(source.prefix) for key in self.files):
            self.files = {source.prefix + key: handle for key, handle in self.files.items()}
            self.cut = len(source.prefix)
        else:
            self.cut = 0

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, from the header."""
        return tuple(self.files[name].get_slice(name[self.cut :]).get_shape())

    def dtype(self, name: str) -> str:
        """Number format of a tensor as safetensors calls it, e.g. `BF16`, from the header."""
        return str(self.files[name].get_slice(name[self.cut :]).get_dtype())

    def read(self, name: str) -> Tensor:
        """A tensor."""
        tensor: Tensor = self.files[name].get_tensor(name[self.cut :])
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __contains__(self, name: str) -> bool:
        return name in self.files


def _check(
    path: Path,
    rules: list[Rule],
    shards: TensorFiles,
    shapes: Mapping[str, torch.Size],
    source: Family,
    *,
    replaced: Mapping[str, Choice],
) -> None:
    """Every tensor of ours is made once, every tensor of theirs is used, all shapes fit."""
    chosen = ", ".join(f"{axis}={choice.method.name}" for axis, choice in sorted(replaced.items()))
    known = {rule.theirs for rule in rules}
    tied = set(HEADS)
    faults = [f"missing: {name}" for name in sorted(known - set(shards))]
    numbers = {name: shards.dtype(name) for name in sorted(known & set(shards))}
    faults += [
        f"packed: {name} is {kind}, which is no weight but the code of one"
        for name, kind in numbers.items()
        if not kind.startswith(("F32", "F16", "BF16", "F64"))
    ]
    for name in sorted(set(shards) - known - tied):
        if not name.endswith(source.ignored or ("\0",)):
            faults.append(f"unknown: {name}")
    for copy, original in source.copies.items():
        if (
            copy in shards
            and original in shards
            and not torch.equal(shards.read(copy), shards.read(original))
        ):
            faults.append(f"two embeddings: {copy} differs from {original}, and we have one for both")
    made = {name for rule in rules for name in rule.ours}
    faults += [
        f"no weights for: {name}, which the chosen methods need" for name in sorted(set(shapes) - made)
    ]
    faults += [f"no place for: {name}, given the chosen methods" for name in sorted(made - set(shapes))]
    for rule in rules:
        if rule.theirs not in shards or not set(rule.ours) <= set(shapes):
            continue
        found = shards.shape(rule.theirs)
        try:
            parts = rule.split(torch.empty(found, device="meta"))
            fits = [tuple(part.shape) for part in parts] == [tuple(shapes[name]) for name in rule.ours]
        except (RuntimeError, IndexError):
            fits = False
        if not fits:
            wanted = tuple(rule.join(*(torch.empty(shapes[name], device="meta") for name in rule.ours)).shape)
            asks = chosen or "its config"
            faults.append(f"wrong shape: {rule.theirs} is {found}, and {asks} wants {wanted}")
    if faults:
        faults = _by_role(faults)
        more = f" and {len(faults) - 12} more" if len(faults) > 12 else ""
        way = (
            f" Choose methods with the parameters of the checkpoint, or leave out {chosen}." if chosen else ""
        )
        raise DataError(
            f"{path} does not fit {chosen or 'its config'}: {'; '.join(faults[:12])}{more}. Nothing was "
            f"loaded.{way}"
        )


def _by_role(faults: list[str]) -> list[str]:
    """Faults that are told of every layer are told once, with a star for its number."""
    told: dict[str, list[str]] = {}
    for fault in faults:
        told.setdefault(re.sub(r"\.\d+\.", ".*.", fault), []).append(fault)
    return [same[0] if len(same) == 1 else f"{role} (in {len(same)} layers)" for role, same in told.items()]
