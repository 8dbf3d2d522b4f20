"""What calibrated and trained quantizers read: windows of the training split, and their hash."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import torch

from harness.errors import DataError
from harness.rng import Purpose

if TYPE_CHECKING:
    from harness.axes.quantizer import Calibration
    from harness.model.artifact import Loaded
    from harness.stages.stage import Work


def calibrate(work: Work, loaded: Loaded) -> Calibration:
    """Random windows of the training split, and their hash.

    Raises: DataError where there is too little text
    """
    from harness.axes.quantizer import Calibration

    config = work.config
    count, length = config.calibration_sequences, config.calibration_length
    total = count + config.held_out_sequences
    stream = training_tokens(work, loaded, wanted=4 * total * length)
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


def training_tokens(work: Work, loaded: Loaded, *, wanted: int) -> np.ndarray:
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
