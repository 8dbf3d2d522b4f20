"""What calibrated methods read: windows of the training split, and their hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from harness.compose.schema import stage_key
from harness.errors import ConfigError, DataError
from harness.method import Problem
from harness.model.reach import beyond_table
from harness.ops.calibration import Calibration, calibration_inputs
from harness.rng import Purpose
from harness.stage import Stage

if TYPE_CHECKING:
    from torch import nn

    from harness.compose import Cell
    from harness.model.artifact import Loaded
    from harness.stage import Work


TOKENS_PER_BYTE = 2
"""More than any tokenizer makes of a byte, with those that begin and end documents."""


@dataclass(frozen=True, kw_only=True)
class CalibrationConfig(Stage.Config):
    """Options of a stage whose methods may look at calibration data."""

    calibration_sequences: int = 32
    """Sequences of training data that a calibrated method sees."""
    calibration_length: int = 128
    """Tokens of each, the one included that scored texts begin with."""
    calibration_batch: int = 8
    """Sequences run at once."""

    def __post_init__(self) -> None:
        least = {"calibration_sequences": 1, "calibration_length": 2, "calibration_batch": 1}
        for name, least_value in least.items():
            if getattr(self, name) < least_value:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least {least_value}")


class Calibrated(Protocol):
    """A method that may need calibration data; `Quantizer` and `Pruner` are."""

    axis: Any
    name: Any
    needs_calibration: Any

    def calibration_tokens(self, in_features: int) -> int:
        """Tokens without which a layer with so many inputs cannot be done."""
        ...


def calibrate(work: Work, loaded: Loaded, *, held_out: int = 0) -> Calibration:
    """Random windows of the training split, each behind the token that scored texts begin with; their hash.

    `held_out` further windows are kept apart. The stage's Config is a CalibrationConfig.
    Raises: DataError where there is too little text
    """
    from harness.data.tokenization import prefix_token

    config = work.config
    count, length = config.calibration_sequences, config.calibration_length
    total = count + held_out
    stream = training_tokens(work, loaded, wanted=4 * total * length)
    if len(stream) < total * length:
        raise DataError(
            f"calibration needs {total} x {length} = {total * length} tokens (with those held out) and the "
            f"training split has {len(stream)}; lower {stage_key(work.stage)}.calibration_sequences or "
            "calibration_length"
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


def calibration_problems(
    cell: Cell, stage: str, method: Calibrated, meta_model: nn.Module | None, *, held_out: int = 0
) -> Iterator[Problem]:
    """Calibration text that is too short, too long for the model, too little for it, or not there at all."""
    if not method.needs_calibration:
        return
    config, key = cell.stage_config(stage), stage_key(stage)
    rows, length = config.calibration_sequences, config.calibration_length
    where = f"{key}.calibration_length"
    yield from beyond_table(meta_model, length, where=where)
    yield from text_problems(
        cell,
        stage,
        method,
        rows=rows + held_out,
        length=length,
        where=where,
        lower=f" or {key}.calibration_sequences",
    )
    yield from _unseen(rows, length, method, meta_model, key=key)


def text_problems(
    cell: Cell, stage: str, method: Any, *, rows: int, length: int, where: str, lower: str = ""
) -> Iterator[Problem]:
    """Text that a method reads and that no stage brings, or that is known to be too short for it."""
    chosen = f"{method.axis}={method.name}"
    if not any(cell.makes(name) == "documents" for name in cell.stages[: cell.stages.index(stage)]):
        yield Problem(
            where=f"{stage}: {chosen}",
            message=f"it reads text, and no stage before {stage} brings any; put corpus before it in stages",
        )
    bytes_ = _most_bytes(cell)
    if bytes_ is not None and rows * length > TOKENS_PER_BYTE * bytes_:
        yield Problem(
            where=where,
            message=f"{chosen} needs {rows} x {length} = {rows * length} tokens, which no tokenizer makes of "
            f"at most {bytes_} bytes of text; lower it{lower}, or raise the corpus's size",
        )


def _most_bytes(cell: Cell) -> int | None:
    """Bytes of the cell's corpus at most, where they are known without reading it."""
    corpus = cell.choice("corpus")
    try:
        return None if corpus is None else corpus.build().most_bytes()  # type: ignore[no-any-return]
    except (ConfigError, DataError):
        return None  # what the corpus lacks, its own stage says


def _unseen(
    rows: int, length: int, method: Calibrated, meta_model: nn.Module | None, *, key: str
) -> Iterator[Problem]:
    """The layer whose inputs are more than all calibration tokens, where the method needs as many; an encoder
    and its decoder share a sequence's tokens.
    """
    from harness.ops.packed_linear import packed_shapes

    if meta_model is None:
        return
    layers = ((shape[2], name) for name, shape in packed_shapes(meta_model).items())
    inputs, name = max(layers, default=(0, ""))
    needed = method.calibration_tokens(inputs)
    sequence = torch.empty(1, length, dtype=torch.long, device="meta")
    length = min(part.shape[1] for part in calibration_inputs(meta_model, sequence).values())
    if rows * length < needed:
        yield Problem(
            where=f"{key}.calibration_length",
            message=f"{rows} x {length} = {rows * length} calibration tokens, and "
            f"{method.axis}={method.name} needs {needed} for layer {name} with {inputs} inputs; raise "
            f"{key}.calibration_sequences or {key}.calibration_length",
        )


def training_tokens(work: Work, loaded: Loaded, *, wanted: int) -> np.ndarray:
    """Training tokens in one row: all of the tokens stage, or at least `wanted` of the documents."""
    from harness.axes.corpus import Split
    from harness.data import documents
    from harness.data.token_files import TokenFiles
    from harness.data.tokenization import encode_plain

    same_tokenizer = "tokens" in work.inputs and not loaded.tokenizer_from.startswith("/")
    if same_tokenizer:
        files = TokenFiles(work.inputs["tokens"].path)
        return np.concatenate([files.tokens(Split.train, d) for d in files.domains(Split.train)])
    if "documents" not in work.inputs:
        raise DataError(f"calibration needs text: put corpus (or tokens) before {work.stage} in stages")
    ids: list[int] = []
    for document in documents.iterate(work.inputs["documents"].path, Split.train):
        ids += encode_plain(loaded.tokenizer, document.text)["input_ids"]
        ids.append(loaded.tokenizer.eos_token_id or 0)
        if len(ids) >= wanted:
            break
    return np.array(ids)
