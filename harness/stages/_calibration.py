"""What calibrated and trained quantizers read: windows of the training split, and their hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from harness.errors import ConfigError, DataError
from harness.method import Problem
from harness.rng import Purpose
from harness.stages._training import beyond_table

if TYPE_CHECKING:
    from torch import nn

    from harness.axes.quantizer import Calibration, Quantizer
    from harness.compose import Cell
    from harness.model.artifact import Loaded
    from harness.stage import Work


TOKENS_PER_BYTE = 2
"""More than any tokenizer makes of a byte, with those that begin and end documents."""


def calibrate(work: Work, loaded: Loaded) -> Calibration:
    """Random windows of the training split, each behind the token that scored texts begin with; their hash.

    Raises: DataError where there is too little text
    """
    from harness.axes.quantizer import Calibration
    from harness.data.tokenization import prefix_token

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
    read = length - 1
    starts = rng.choice(len(stream) // read, size=total, replace=False) * read
    first = [prefix_token(loaded.tokenizer)]
    ids = np.stack([np.concatenate([first, stream[s : s + read]]) for s in starts]).astype(np.int64)

    def batches(rows: np.ndarray) -> list[torch.Tensor]:
        size = config.calibration_batch
        return [torch.from_numpy(rows[i : i + size]).to(work.device) for i in range(0, len(rows), size)]

    return Calibration(
        batches_BT=batches(ids[:count]),
        held_out_BT=batches(ids[count:]),
        sha256=hashlib.sha256(ids[:count].tobytes()).hexdigest(),
    )


def text_problems(
    cell: Cell, stage: str, method: Quantizer, meta_model: nn.Module | None
) -> Iterator[Problem]:
    """Text that a quantizer reads and that is too short, too long for the model, or not there at all."""
    config = cell.stage_config(stage)
    calibrates = method.needs_calibration
    length = config.calibration_length if calibrates else config.sequence_length
    option = f"{stage}.{'calibration' if calibrates else 'sequence'}_length"
    if calibrates or method.trains:
        yield from beyond_table(meta_model, length, where=option)
    if not method.reads_tokens():
        return
    if not any(name.partition("@")[0] == "corpus" for name in cell.stages[: cell.stages.index(stage)]):
        yield Problem(
            where=f"{stage}: quantizer={method.name}",
            message=f"it reads text, and no stage before {stage} brings any; put corpus before it in stages",
        )
    rows = config.calibration_sequences + config.held_out_sequences if calibrates else 1
    bytes_ = _most_bytes(cell)
    if bytes_ is not None and rows * length > TOKENS_PER_BYTE * bytes_:
        yield Problem(
            where=option,
            message=f"quantizer={method.name} needs {rows} x {length} = {rows * length} tokens, which no "
            f"tokenizer makes of at most {bytes_} bytes of text; lower it"
            f"{f' or {stage}.calibration_sequences' if calibrates else ''}, or raise the corpus's size",
        )
    yield from _unseen(config, method, meta_model, where=option)


def _most_bytes(cell: Cell) -> int | None:
    """Bytes of the cell's corpus at most, where they are known without reading it."""
    corpus = cell.choice("corpus")
    try:
        return None if corpus is None else corpus.build().most_bytes()  # type: ignore[no-any-return]
    except (ConfigError, DataError):
        return None  # what the corpus lacks, its own stage says


def _unseen(config: Any, method: Quantizer, meta_model: nn.Module | None, *, where: str) -> Iterator[Problem]:
    """The layer whose inputs are more than all calibration tokens, where the method needs as many."""
    from harness.axes.quantizer import packed_shapes

    if meta_model is None:
        return
    tokens = config.calibration_sequences * config.calibration_length
    layers = ((shape[2], name) for name, shape in packed_shapes(meta_model).items())
    inputs, name = max(layers, default=(0, ""))
    needed = method.calibration_tokens(inputs)
    if tokens < needed:
        yield Problem(
            where=where,
            message=f"{config.calibration_sequences} x {config.calibration_length} = {tokens} calibration "
            f"tokens, and quantizer={method.name} needs {needed} for layer {name} with {inputs} inputs; "
            "raise quantize.calibration_sequences or quantize.calibration_length",
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
