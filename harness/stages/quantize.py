"""Quantize: the model in few bits."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from harness.errors import ConfigError, DataError, EffectError, IncompatibleError
from harness.rng import Purpose
from harness.stages.stage import Stage, Work

if TYPE_CHECKING:
    from torch import nn

    from harness.axes.quantizer import Calibration, Quantizer
    from harness.compose import Cell
    from harness.model.artifact import Loaded


class Quantize(Stage):
    """Packs the linear layers. An adapter is merged first where it can be, else it stays in 16 bits.

    So both orders exist after tuning: merge, then quantize; or quantize the base beneath its adapter.
    """

    name = "quantize"
    axes: ClassVar[tuple[str, ...]] = ("quantizer",)
    needs = ("model",)
    may_need = ("tokens", "documents")
    produces = "model"

    @dataclass(frozen=True, kw_only=True)
    class Config(Stage.Config):
        calibration_sequences: int = 32
        """Sequences of training data that a calibrated quantizer sees."""
        calibration_length: int = 128
        """Tokens of each."""
        calibration_batch: int = 8
        """Sequences run at once."""
        held_out_sequences: int = 8
        """Further sequences that nothing is fitted to, on which layer errors are reported."""
        merge: bool = True
        """Whether an adapter that can be merged is, before; else the base alone is packed beneath it."""

        def __post_init__(self) -> None:
            if self.held_out_sequences < 0:
                raise ConfigError(f"quantize.held_out_sequences={self.held_out_sequences} is negative")
            for name in ("calibration_sequences", "calibration_length", "calibration_batch"):
                if getattr(self, name) < 1:
                    raise ConfigError(f"quantize.{name}={getattr(self, name)} must be at least 1")

    config: Config

    @classmethod
    def active(cls, cell: Cell) -> bool:
        return cell.choice("quantizer", stage=cls.name) is not None

    def run(self, work: Work) -> dict[str, Any]:
        from harness.effects import prove, snapshot
        from harness.model.artifact import Delta, describe, open_model, save_model

        choice = work.one("quantizer")
        method: Quantizer = choice.build()
        loaded = open_model(work, merge=work.config.merge, adapters=False)
        if loaded.packed:
            raise IncompatibleError(f"quantizer={method.name}: the model is packed already")
        calibration = calibrate(work, loaded) if method.needs_calibration else None
        before = snapshot(loaded.model)
        started = time.perf_counter()
        model = method.quantize(loaded.model, calibration)
        seconds = time.perf_counter() - started
        effects = prove(before, snapshot(model), what=f"quantizer={method.name}")
        save_model(
            work.out,
            model,
            base=loaded.base,
            delta=Delta.packed,
            applied=[*loaded.applied, describe(choice)],
            tokenizer=loaded.tokenizer_from,
            template=loaded.template,
            adapter=loaded.adapter,
            adapter_path=loaded.adapter_path,
        )
        facts = measured_bits(model, method) | method.facts
        facts["seconds"] = seconds
        facts["adapter"] = "kept in 16 bits" if loaded.adapter else "none or merged"
        facts["calibration_sha256"] = calibration.sha256 if calibration else ""
        facts["calibration_tokens"] = sum(b.numel() for b in calibration.batches_BT) if calibration else 0
        facts["effects"] = {f"quantizer={method.name}": effects}
        return facts


def measured_bits(model: nn.Module, method: Quantizer) -> dict[str, Any]:
    """Bits for each weight, by formula and as stored, and the model's size.

    Raises: EffectError where they differ by more than 1 %
    """
    from harness.axes.quantizer import PackedLinear

    packed = {n: m for n, m in model.named_modules() if isinstance(m, PackedLinear)}
    weights = sum(m.num_weights() for m in packed.values())
    stored = sum(m.stored_bits() for m in packed.values()) / weights
    formula = sum(
        m.num_weights() * method.bits_per_weight(m.in_features, m.out_features) for m in packed.values()
    )
    formula /= weights
    if abs(stored / formula - 1) > 0.01:
        raise EffectError(
            f"quantizer={method.name} stores {stored:.3f} bits a weight instead of {formula:.3f}"
        )
    tensors = {t.data_ptr(): t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers())}
    return {
        "bits_per_weight": stored,
        "bits_per_weight_formula": formula,
        "packed_layers": len(packed),
        "packed_weights": weights,
        "model_bytes": sum(tensors.values()),
    }


def calibrate(work: Work, loaded: Loaded) -> Calibration:
    """Random windows of the training split, and their hash.

    Raises: DataError where there is too little text
    """
    from harness.axes.quantizer import Calibration

    config = work.config
    count, length = config.calibration_sequences, config.calibration_length
    total = count + config.held_out_sequences
    stream = _training_tokens(work, loaded, wanted=4 * total * length)
    if len(stream) < total * length:
        raise DataError(
            f"calibration needs {total} x {length} = {total * length} tokens (with those held out) and the "
            f"training split has {len(stream)}; lower quantize.calibration_sequences or calibration_length"
        )
    rng = np.random.default_rng(work.stream(Purpose.calibration))
    starts = rng.choice(len(stream) // length, size=total, replace=False) * length
    ids = np.stack([stream[s : s + length] for s in starts]).astype(np.int64)

    def batches(rows: np.ndarray) -> list[torch.Tensor]:
        size = config.calibration_batch
        return [torch.from_numpy(rows[i : i + size]).to(work.device) for i in range(0, len(rows), size)]

    return Calibration(
        batches_BT=batches(ids[:count]),
        held_out_BT=batches(ids[count:]),
        sha256=hashlib.sha256(ids[:count].tobytes()).hexdigest(),
    )


def _training_tokens(work: Work, loaded: Loaded, *, wanted: int) -> np.ndarray:
    """Training tokens in one row: all of the tokens stage, or at least `wanted` of the documents."""
    from harness.axes.corpus import Split
    from harness.data import documents
    from harness.data.token_files import TokenFiles

    same_tokenizer = "tokens" in work.inputs and not loaded.tokenizer_from.startswith("/")
    if same_tokenizer:
        files = TokenFiles(work.inputs["tokens"].path)
        return np.concatenate([files.tokens(Split.train, d) for d in files.domains(Split.train)])
    if "documents" not in work.inputs:
        raise DataError("calibration needs text: put corpus (or tokens) before quantize in stages")
    ids: list[int] = []
    for document in documents.iterate(work.inputs["documents"].path, Split.train):
        ids += loaded.tokenizer(document.text, add_special_tokens=False)["input_ids"]
        ids.append(loaded.tokenizer.eos_token_id or 0)
        if len(ids) >= wanted:
            break
    return np.array(ids)
