"""Quantization-aware training: the loop, run on a model whose layers round as they compute."""

from __future__ import annotations

import copy
import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from harness.data.template import IGNORED
from harness.errors import DataError, IncompatibleError
from harness.model.calibration import training_tokens
from harness.ops.calibration import calibration_inputs
from harness.rng import Purpose
from harness.stages._training import run_training

if TYPE_CHECKING:
    from harness.axes.quantizer import Quantizer
    from harness.model.artifact import Loaded
    from harness.stage import Work
    from harness.training.contract import Batch, Loss, LossSum


class RowSource:
    """Rows of tokens in a new order each round; what stands at t predicts t + 1.

    A model with an encoder is given its source too, as `calibration_inputs` says.
    Shapes: ids_NT int64
    """

    def __init__(self, ids_NT: np.ndarray, *, seed: int, model: nn.Module) -> None:
        self.ids_NT, self.seed, self.drawn, self.model = ids_NT, seed, 0, model
        self.num_samples = len(ids_NT)

    def next(self, size: int) -> Batch:
        """The next `size` rows."""
        ids_BT = torch.from_numpy(np.stack([self._row(self.drawn + i) for i in range(size)]))
        self.drawn += size
        inputs = calibration_inputs(self.model, ids_BT)
        labels_BT = inputs["input_ids"].roll(-1, 1)
        labels_BT[:, -1] = IGNORED
        return {**inputs, "labels_BT": labels_BT}

    def _row(self, number: int) -> np.ndarray:
        round_, place = divmod(number, self.num_samples)
        order = np.random.default_rng((self.seed, round_)).permutation(self.num_samples)
        row: np.ndarray = self.ids_NT[order[place]]
        return row

    def state_dict(self) -> dict[str, Any]:
        """Rows drawn so far."""
        return {"drawn": self.drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after so many rows."""
        self.drawn = state["drawn"]


def train_quantized(work: Work, loaded: Loaded, method: Quantizer) -> dict[str, Any]:
    """Prepare the model and train all its weights; returns what was measured.

    Raises: IncompatibleError where an adapter could not be merged: it would stand on other weights
    """
    if loaded.adapter is not None:
        raise IncompatibleError(
            f"quantizer={method.name} trains the weights, and the adapter of "
            f"peft={loaded.adapter.method.name} cannot be merged into them; tune with a mergeable method"
        )
    ids_NT = sequences(work, loaded, method)
    teacher = copy.deepcopy(loaded.model).requires_grad_(False).eval() if method.needs_teacher() else None
    model = method.prepare(loaded.model).requires_grad_(True)
    source = RowSource(ids_NT, seed=work.stream(Purpose.data_order), model=model)
    facts = run_training(work, model, source, distillation_loss(method, teacher))
    model.requires_grad_(False).eval()
    facts["sequences"] = len(ids_NT)
    facts["data_sha256"] = hashlib.sha256(ids_NT.tobytes()).hexdigest()
    return facts


def sequences(work: Work, loaded: Loaded, method: Quantizer) -> np.ndarray:
    """Rows to train on: what the model itself writes, else all of the training split.

    Shapes: N x sequence_length, int64
    Raises: DataError where the training split is shorter than one row
    """
    length = work.config.sequence_length
    generator = torch.Generator().manual_seed(work.stream(Purpose.sampling))
    written_NT = method.sequences(loaded.model, length=length, generator=generator)
    if written_NT is not None:
        ids_NT: np.ndarray = written_NT.cpu().numpy().astype(np.int64)
        return ids_NT
    stream = training_tokens(work, loaded, wanted=length)
    whole = len(stream) // length
    if not whole:
        raise DataError(
            f"quantizer={method.name} needs {length} training tokens and the training split has "
            f"{len(stream)}; lower quantize.sequence_length"
        )
    return stream[: whole * length].astype(np.int64).reshape(whole, length)


def distillation_loss(method: Quantizer, teacher: nn.Module | None) -> Loss:
    """The method's loss over the tokens that have a next one."""
    from harness.training.contract import LossSum

    def loss(model: nn.Module, batch: Batch) -> LossSum:
        labels_BT = batch["labels_BT"]
        inputs = {name: value for name, value in batch.items() if name != "labels_BT"}
        kept = labels_BT != IGNORED
        logits_NV = model(**inputs, use_cache=False).logits[kept].float()
        teacher_NV = None
        if teacher is not None:
            with torch.no_grad():
                teacher_NV = teacher(**inputs, use_cache=False).logits[kept].float()
        return LossSum(method.token_loss(logits_NV, teacher_NV, labels_BT[kept]), kept.sum(), {})

    return loss
