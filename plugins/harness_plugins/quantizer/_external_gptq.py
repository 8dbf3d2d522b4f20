"""GPTQ by a library in its own interpreter: a model directory and tokens go out, packed tensors come back."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from harness import (
    Calibration,
    CellView,
    ConfigError,
    EffectError,
    IncompatibleError,
    PackedLayout,
    PackedLinear,
    Problem,
    Quantizer,
    check_limits,
    path_ref,
)

from ._gptq_format import WORD, GPTQFormatLinear, pack_words
from ._interpreter import call, packages, probe

ROTATED = (
    "the library reads a checkpoint, which cannot say that the model is rotated as it runs; use "
    "rotation=none, or quantizer=gptq"
)
WORKER = Path(__file__).with_name("_gptq_worker.py")


@dataclass(frozen=True, kw_only=True)
class ExternalGPTQConfig(Quantizer.Config):
    """Options that both libraries have."""

    python: str = path_ref()
    """Interpreter in whose environment the library is installed."""
    bits: int = 4
    """Bits of a code: 2, 3, 4 or 8."""
    group_size: int | None = 128
    """Inputs that share a scale; null for all inputs of a channel."""
    symmetric: bool = True
    """Whether the grid is centred on zero."""
    damping: float = 0.01
    """Added to the Hessian's diagonal, as a share of its mean."""
    act_order: bool = False
    """Whether columns are met in the order of falling second moment."""
    static_groups: bool = False
    """Whether the grids of groups are set before the first column."""
    batch_size: int = 1
    """Calibration sequences the library runs at once."""

    def __post_init__(self) -> None:
        if self.bits not in (2, 3, 4, 8):
            raise ConfigError(f"quantizer.bits={self.bits} must be 2, 3, 4 or 8")
        check_limits(self, "quantizer", "group_size", null="all inputs of a channel")
        if not 0 <= self.damping < 1:
            raise ConfigError(f"quantizer.damping={self.damping} must be in [0, 1)")
        if self.batch_size < 1:
            raise ConfigError(f"quantizer.batch_size={self.batch_size} must be at least 1")


class ExternalGPTQ(Quantizer):
    """Base of the quantizers that run a library in its own interpreter."""

    needs_calibration = True
    needs_cuda: ClassVar[bool] = True
    Config = ExternalGPTQConfig
    config: ExternalGPTQConfig

    @classmethod
    def unavailable(cls, config: ExternalGPTQConfig) -> str | None:
        make = f"`make {cls.name.replace('_', '-')}-env` makes one"
        if not config.python:
            return f"quantizer={cls.name} runs in an interpreter of its own; set quantizer.python ({make})"
        found = probe(config.python, cls.name)
        if found["library"] is None:
            return f"quantizer.python={config.python} cannot import {cls.name}: {found['error']} ({make})"
        if cls.needs_cuda and not found["cuda"]:
            return f"{cls.name} {found['library']} quantizes on CUDA only, and {config.python} sees no device"
        return None

    @classmethod
    def reads(cls, config: Any) -> dict[str, Path]:
        return packages(config.python) if config.python else {}

    @classmethod
    def check(cls, config: Any, cell: CellView, meta_model: nn.Module | None) -> Iterable[Problem]:
        if cell.choice("rotation") is not None:
            yield Problem(where=f"quantizer={cls.name}", message=ROTATED)
        message = None if meta_model is None else unknown_family(meta_model)
        if message is not None:
            yield Problem(where=f"quantizer={cls.name}", message=message)
        yield from super().check(config, cell, meta_model)

    def quantize(self, model: nn.Module, calibration: Calibration | None) -> nn.Module:
        self.targets(model)
        turned = ROTATED if hasattr(model, "rotated") else None
        message = self.unavailable(self.config) or unknown_family(model) or turned
        if message is not None:
            raise IncompatibleError(message)
        assert calibration is not None
        with tempfile.TemporaryDirectory() as directory:
            source, out = Path(directory) / "model", Path(directory) / "packed"
            self.hand_out(model, calibration, source)
            call(self.config.python, WORKER, str(source), str(out), within=Path(directory))
            self.facts = {"library": f"{self.name} {probe(self.config.python, self.name)['library']}"}
            return self.take_back(model, out)

    def hand_out(self, model: Any, calibration: Calibration, directory: Path) -> None:
        """Write what the worker reads."""
        model.save_pretrained(directory)
        write_legacy_config(directory / "config.json")
        write_tokenizer(directory, model.config.vocab_size)
        rows = [row for ids_BT in calibration.batches_BT for row in ids_BT.tolist()]
        (directory / "calibration.json").write_text(json.dumps(rows))
        config = self.config
        settings = {  # by the names that both libraries give them
            "bits": config.bits,
            "group_size": _stated(config.group_size),
            "sym": config.symmetric,
            "damp_percent": config.damping,
            "desc_act": config.act_order,
            "static_groups": config.static_groups,
        }
        options = {"library": self.name, "batch_size": config.batch_size, "settings": settings}
        (directory / "options.json").write_text(json.dumps(options))

    def take_back(self, model: nn.Module, directory: Path) -> nn.Module:
        """The model with the layers of the library's checkpoint.

        Raises: EffectError where the library left a layer as it was
        """
        from safetensors.torch import load_file

        tensors: dict[str, Tensor] = {}
        for file in sorted(directory.glob("*.safetensors")):
            tensors |= load_file(file)
        device = next(model.parameters()).device

        def read(name: str, layer: nn.Module) -> GPTQFormatLinear:
            if f"{name}.qweight" not in tensors:
                raise EffectError(f"{self.name} left layer {name} as it was")
            packed = self.empty_layer(layer)
            for part, buffer in packed.named_buffers(recurse=False):
                buffer.copy_(tensors[f"{name}.{part}"])
            return packed.to(device)

        return self.swap(model, read)

    def layouts(self) -> Sequence[str]:
        return ("gptq",)

    def lay_out(
        self, layers: Mapping[str, PackedLinear], layout: str, *, skipped: Sequence[str]
    ) -> PackedLayout:
        symmetric = self.config.symmetric
        said = {
            "quant_method": "gptq",
            "bits": self.config.bits,
            "group_size": _stated(self.config.group_size),
        }
        said |= {"desc_act": self.config.act_order, "sym": symmetric, "lm_head": False, "pack_dtype": "int32"}
        said["checkpoint_format"] = "gptq" if symmetric else "gptq_v2"
        tensors = {name: dict(layer.named_buffers(recurse=False)) for name, layer in layers.items()}
        for name, layer in layers.items():
            assert isinstance(layer, GPTQFormatLinear)
            if not symmetric:
                tensors[name]["qzeros"] = pack_words(layer.zeros().T, layer.bits).T.contiguous()
        return PackedLayout(config=said, tensors=tensors)

    def empty_layer(self, layer: nn.Module) -> GPTQFormatLinear:
        in_features, out_features, bias = self.fitting(layer)
        group_size = self.group(in_features)
        return GPTQFormatLinear(in_features, out_features, bias, bits=self.config.bits, group_size=group_size)

    def group(self, in_features: int) -> int:
        """Inputs that share a scale."""
        return in_features if self.config.group_size is None else int(self.config.group_size)

    def layer_problems(self, in_features: int, out_features: int) -> str | None:
        if in_features % WORD or out_features % WORD:
            return f"its {in_features} x {out_features} weights must be multiples of {WORD} on both sides"
        if in_features % self.group(in_features):
            size = self.config.group_size
            return f"quantizer.group_size={size} must divide its {in_features} inputs; use null"
        return None

    def bits_per_weight(self, in_features: int, out_features: int) -> float:
        bits = self.config.bits
        return bits + (16 + bits) / self.group(in_features) + 32 / out_features


def _stated(group_size: int | None) -> int:
    """A group's size as both libraries write it: -1 for all inputs of a channel."""
    return -1 if group_size is None else group_size


def unknown_family(model: nn.Module) -> str | None:
    """Why no library can read the model; they know Hugging Face's own families only."""
    family = getattr(getattr(model, "config", None), "model_type", "harness")  # without one it is our own
    if family != "harness":
        return None
    return (
        "the library reads Hugging Face's own model families; quantize a checkpoint with model=pretrained "
        "(`harness export` writes ours as one), or use quantizer=gptq"
    )


def write_tokenizer(directory: Path, vocab_size: int) -> None:
    """A tokenizer of bare numbers: gptqmodel opens no directory without one, yet is given token ids."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    numbers = Tokenizer(WordLevel({str(token): token for token in range(vocab_size)}, unk_token="0"))
    fast = PreTrainedTokenizerFast(tokenizer_object=numbers, unk_token="0", pad_token="0", eos_token="0")
    fast.save_pretrained(directory)


def write_legacy_config(file: Path) -> None:
    """Add the names that transformers 4 reads: rope_theta, rope_scaling and torch_dtype."""
    config = json.loads(file.read_text())
    rope = dict(config.get("rope_parameters") or {})
    if rope:
        config["rope_theta"] = rope.pop("rope_theta")
        config["rope_scaling"] = None if rope.get("rope_type") == "default" else rope
    config["torch_dtype"] = config.get("dtype", str(torch.float32).rpartition(".")[2])
    file.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
