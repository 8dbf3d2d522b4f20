"""Files of llama.cpp: a GGUF is dequantized once into the store, and is a Hugging Face directory then."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import DataError, StoreFullError
from harness.store.external import ORIGIN
from harness.store.files import sha256_file

if TYPE_CHECKING:
    from gguf import GGUFReader

ENDING = ".gguf"
_MADE: dict[Path, Path] = {}
"""Directories of the files that this process has asked for: reading metadata again takes seconds."""
BYTES = 4
"""Of a dequantized weight: float32 holds every value of every type exactly."""


def is_gguf(path: str | Path) -> bool:
    """Whether a path names a GGUF file."""
    return str(path).endswith(ENDING)


def gguf_config(path: Path) -> dict[str, Any]:
    """What config.json says of a GGUF: that of the directory it became in this process, else its metadata's.

    Raises: DataError where it is no whole GGUF, or transformers cannot read its architecture
    """
    if not path.is_file():
        raise DataError(f"model.path={path}: there is no such file")
    made = _MADE.get(path.absolute())
    if made is not None:
        found: dict[str, Any] = json.loads((made / "config.json").read_text(encoding="utf-8"))
        return found
    from transformers import AutoConfig

    _open(path)
    try:
        config: dict[str, Any] = AutoConfig.from_pretrained(path.parent, gguf_file=path.name).to_dict()
    except (ValueError, KeyError, OSError, NotImplementedError) as error:
        raise _unreadable(path, error) from error
    config.pop("quantization_config", None)
    return config


def dequantized(path: Path, *, root: Path) -> Path:
    """The Hugging Face directory of a GGUF (float32 weights, tokenizer, template), made once below `root`.

    State: `root/imports/<SHA-256 of the file>`
    Raises: DataError where it cannot be read, StoreFullError where the weights would not fit the disk
    """
    if not path.is_file():
        raise DataError(f"model.path={path}: there is no such file")
    content = sha256_file(path)
    out = root / "imports" / content[:16]
    if not out.is_dir():
        _make(path, out, content)
    _MADE[path.absolute()] = out
    return out


def _make(path: Path, out: Path, content: str) -> None:
    """Dequantize into a directory beside `out`, and rename it in one step."""
    reader = _open(path)
    needed = BYTES * sum(int(tensor.n_elements) for tensor in reader.tensors)
    out.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(out.parent).free
    if free < needed:
        raise StoreFullError(
            f"{path.name} takes {needed / 2**20:.0f} MiB when dequantized, and {out.parent} has room for "
            f"{free / 2**20:.0f}; make room or set HARNESS_STORE to another disk"
        )
    origin = {
        "file": path.name,
        "sha256": content,
        "types": dict(Counter(tensor.tensor_type.name for tensor in reader.tensors)),
    }
    size = f"{needed / 2**20:.0f} MiB"
    print(f"harness: {path.name} is written into the store in full precision, once ({size})", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=out.parent) as name:
        draft = Path(name) / "model"
        with contextlib.redirect_stderr(io.StringIO()):  # progress bars that do not say what they are of
            _convert(path, draft)
        (draft / ORIGIN).write_text(json.dumps(origin, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        if not out.is_dir():
            draft.rename(out)


def _convert(path: Path, out: Path) -> None:
    """Write what transformers reads of a GGUF as `save_pretrained` writes a model."""
    import torch
    from transformers import AutoTokenizer

    from harness.model.whole import read_whole

    try:
        model = read_whole(path.parent, gguf_file=path.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    except Exception as error:  # the tokenizers library raises no narrower type
        raise _unreadable(path, error) from error
    # Both say that the weights are packed, which they no longer are; save_pretrained would refuse.
    for holder, attribute in ((model.config, "quantization_config"), (model, "hf_quantizer")):
        if hasattr(holder, attribute):
            delattr(holder, attribute)
    model.is_quantized = False
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def _open(path: Path) -> GGUFReader:
    """The file's tensors, which must all lie inside it.

    Raises: DataError, MissingExtraError
    """
    from gguf import GGUFReader

    try:
        return GGUFReader(path)
    except (ValueError, KeyError, IndexError, OSError, OverflowError) as error:
        raise DataError(
            f"{path} is no whole GGUF file ({type(error).__name__}: {error}); was its download cut short?"
        ) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        f"transformers cannot read {path} ({type(error).__name__}: {error}); convert the model it was made "
        "from with save_pretrained, and give that directory"
    )
