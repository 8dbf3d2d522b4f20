"""`harness diff`, `harness reproduce` and `harness export`: what one does with single records."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from harness.commands.models import load_record
from harness.commands.records import find
from harness.compose.schema import stage_key
from harness.errors import ConfigError, IncompatibleError, StoreError
from harness.store import Store
from harness.store.files import new_folder
from harness.store.records import is_timed, numbers, read_record, record_dir, same_number


def diff(arguments: Sequence[str]) -> int:
    """`harness diff A B`: how two records differ in config, facts and metrics; exit code 1 if they do.

    Raises: StoreError
    """
    parser = _parser("diff", "How two records differ in config, facts, metrics and versions.")
    _record(parser, "a")
    _record(parser, "b")
    asked = parser.parse_args(arguments)
    root = Store().root
    a, b = (find(root, name) for name in (asked.a, asked.b))
    table = Table("where", asked.a, asked.b)
    sections = ("config", "levels", "seed", "outcome", "facts", "effects")
    for section in sections:
        for key, left, right in differences(a.get(section), b.get(section), section):
            table.add_row(key, str(left), str(right))
    for key, left, right in differences(numbers(a), numbers(b), "metrics"):
        table.add_row(key, str(left), str(right))
    for key, left, right in differences(_circumstances(a), _circumstances(b), ""):
        table.add_row(key.lstrip("."), str(left), str(right))
    if not table.row_count:
        print("the records agree")
        return 0
    Console().print(table)
    return 1


def _circumstances(record: Mapping[str, Any]) -> dict[str, Any]:
    """What may move a number besides the config: code, libraries, machine, threads, files."""
    found = record.get("provenance") or {}
    named = ("harness", "git", "project", "plugins", "versions", "python", "platform", "hardware")
    of_stages = {
        word: {f"{stage['stage']} {stage['part']}".strip(): stage.get(word) for stage in record["stages"]}
        for word in ("threads", "files")
    }
    return {**{name: found.get(name) for name in named}, **of_stages}


def differences(a: Any, b: Any, where: str) -> Iterator[tuple[str, Any, Any]]:
    """Leaves in which two JSON values differ."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in [*a, *(key for key in b if key not in a)]:
            yield from differences(a.get(key), b.get(key), f"{where}.{key}")
    elif a != b:
        yield where, a, b


def reproduce(arguments: Sequence[str]) -> int:
    """`harness reproduce RECORD`: run its cell again in a store of its own and compare; 1 if it differs.

    Raises: ConfigError, StoreError
    """
    from harness.commands.sweep import sweep

    parser = _parser(
        "reproduce", "Run a record's cell again, in a store of its own, and compare its metrics."
    )
    _record(parser, "record")
    root = Store().root
    record = find(root, parser.parse_args(arguments).record)
    overrides = [text for text in record["overrides"] if not text.startswith(("seed=", "seeds="))]
    ours = Store(root / "reproduced" / record["cell"])
    name = f"name={record['sweep']}"
    seeding = [f"seed={record['seed']}"]
    sweep([*overrides, *seeding, *_threads(record), name], store=ours, only=record["cell"])
    where = record_dir(ours.root, sweep=record["sweep"], cell=record["cell"])
    if not where.exists():
        raise StoreError(
            f"the cell composes to another config than {record['cell']} with this version of the code; "
            f"`harness diff` shows how: records are in {ours.root / 'records'}"
        )
    return _verdict(record, read_record(where))


def _threads(record: Mapping[str, Any]) -> list[str]:
    """Overrides that give each stage the threads it ran with, whatever the defaults are now."""
    ran = {stage["stage"]: stage["threads"] for stage in record["stages"] if stage.get("threads")}
    return [f"{stage_key(stage)}.threads={number}" for stage, number in ran.items()]


def export(arguments: Sequence[str]) -> int:
    """`harness export RECORD DIR`: the cell's final model as a Hugging Face directory.

    Packed weights are written unpacked, and beside them in the file of their own format where it has one;
    with --layout as another library packs them. An adapter that cannot be merged lies in the folder
    `adapter`, for the peft library, its base around it; with --merge it is merged into the unpacked weights.

    Raises: StoreError, IncompatibleError
    """
    parser = _parser("export", "Write the final model of a record's cell as a Hugging Face directory.")
    _record(parser, "record")
    parser.add_argument("directory", type=Path, help="new or empty; made if it is not there")
    parser.add_argument(
        "--layout",
        help="keep packed weights packed, as another library stores them: gptq, awq, compressed-tensors or "
        "bitsandbytes",
    )
    parser.add_argument(
        "--merge",
        action="store_true",
        help="merge an adapter that stands on packed weights into the unpacked ones",
    )
    asked = parser.parse_args(arguments)
    if asked.merge and asked.layout:
        raise ConfigError("--merge writes unpacked weights, --layout packed ones; give one of them")
    store = Store()
    record = find(store.root, asked.record)
    loaded = load_record(record, store)
    base = loaded if loaded.adapter is None else load_record(record, store, adapters=False)
    print(_write_model(loaded, asked.directory, base=base, layout=asked.layout, merge=asked.merge))
    return 0


def _parser(command: str, text: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog=f"harness {command}", description=text)


def _record(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument(
        name,
        help="SWEEP/CELL, as a report names it (the start of CELL does), a directory, or REPORT/CELL of a "
        "committed report, whose records lie in REPORT/records.json.gz",
    )


def _write_model(
    loaded: Any, target: Path, *, base: Any = None, layout: str | None = None, merge: bool = False
) -> str:
    """Write, read again, compare; the directory appears, whole, when it computes what was evaluated.

    `base` is the same model without the adapter that it carries; `layout` keeps packed weights packed,
    `merge` folds an adapter into unpacked ones.
    """
    from harness.axes.quantizer import unpacked
    from harness.model.exported import compare, rope_parameters
    from harness.model.repacked import packed_layers, repack

    base = loaded if base is None else base
    parameters = rope_parameters(base)
    packing = packed_layers(base, layout) if layout else None
    with new_folder(target) as draft:
        loaded.tokenizer.save_pretrained(draft)
        model = unpacked(base.model) if base.packed else base.model
        form = ", unpacked" if base.packed else ""
        form += ", without the rounding of activations" if _rounds_activations(base) else ""
        if merge:
            evaluated = _evaluated(loaded, model)
            said = _write_dense(_merged(loaded, model), draft, parameters)
            compare(evaluated, draft)
            return f"{target}: {said}{form}, with the adapter of peft={loaded.adapter.method.name} merged"
        said = _write_dense(model, draft, parameters)
        laid_out = None
        if packing is not None:
            laid_out = repack(draft, *packing, str(layout), source=model.config)
            form = f", packed as {layout} does"
        said += form
        if loaded.adapter is not None:
            said += f"; {_write_adapter(loaded, model, draft, laid_out)}"
        else:
            said += _compare(model, draft, laid_out)
            if loaded.packed and not layout:
                said += _own_file(loaded, draft)
    return f"{target}: {said}"


def _compare(model: Any, draft: Path, layout: Any, **adapter: Any) -> str:
    """Compare with what transformers reads; or say that it could not, where a layout's library is missing."""
    from harness.model.exported import compare

    try:
        compare(model, draft, layout=layout, **adapter)
    except ImportError as error:
        if layout is None:
            raise
        return f" (not read again here: {' '.join(str(error).split())})"
    return ""


def _merged(loaded: Any, model: Any) -> Any:
    """The unpacked base with the adapter folded in.

    Raises: IncompatibleError where there is none, or it cannot be
    """
    if loaded.adapter is None:
        raise IncompatibleError(
            "--merge: the model carries no adapter of its own; what could be merged is merged already"
        )
    method = loaded.adapter.build()
    return method.merge(method.load(model, loaded.adapter_path, trainable=False))


def _rounds_activations(loaded: Any) -> bool:
    """Whether packed layers rounded what they read too, which those of a directory do not."""
    from harness.model.artifact import restore

    chosen = [restore(entry) for entry in loaded.applied if entry["axis"] == "quantizer"]
    return bool(loaded.packed) and any(choice.method.quantizes_activations for choice in chosen)  # type: ignore[attr-defined]


def _evaluated(loaded: Any, model: Any) -> Any:
    """A model with its adapter as it was evaluated; on the unpacked base where packed layers rounded what
    they read, as no directory does.
    """
    if loaded.adapter is None or not _rounds_activations(loaded):
        return loaded.model
    return loaded.adapter.build().load(deepcopy(model), loaded.adapter_path, trainable=False).eval()


def _write_adapter(loaded: Any, model: Any, draft: Path, layout: Any) -> str:
    """Put the adapter beside its base, and compare what the peft library makes of both.

    Raises: IncompatibleError where that library cannot read it, or reads another model
    """
    from harness.model.artifact import ADAPTER

    shutil.copytree(loaded.adapter_path, draft / ADAPTER)
    name = loaded.adapter.method.name
    evaluated = _evaluated(loaded, model)
    unread = _compare(evaluated, draft, layout, adapter=draft / ADAPTER, method=name)
    return f"the adapter of peft={name} in {ADAPTER}/, which peft loads{unread}"


def _write_dense(model: Any, target: Path, parameters: dict[str, Any] | None) -> str:
    from harness.model.checkpoint import export_checkpoint
    from harness.model.exported import state_positions

    if hasattr(model.config, "model_spec"):
        try:
            family = export_checkpoint(model, target)
        except IncompatibleError as error:
            if parameters is not None:
                raise
            model.save_pretrained(target)
            return f"harness's own format, to be read after `import harness.model` ({error})"
    else:
        family = model.config.model_type
        model.save_pretrained(target)
    if parameters is not None:
        state_positions(target, parameters, trained=model.config.trained_length)
    return f"a {family} model"


def _own_file(loaded: Any, target: Path) -> str:
    """What a quantizer's own programs read, written from the directory just exported."""
    from harness.model.artifact import load_pretrained, restore

    entry = next(e for e in reversed(loaded.applied) if e["axis"] == "quantizer")
    if any(e["axis"] == "rotation" for e in loaded.applied):
        return "; no file for its own programs: they would round weights that are not rotated"
    try:
        dense = load_pretrained(str(target))
        file = restore(entry).build().write_file(dense.model, dense.tokenizer, target)
    except IncompatibleError as error:
        return f"; no file for its own programs: {error}"
    return "" if file is None else f"; {file.name} for its own programs"


def _verdict(before: Mapping[str, Any], after: Mapping[str, Any]) -> int:
    old, new = numbers(before), numbers(after)
    table = Table("metric", "recorded", "reproduced", "")
    differ = after["outcome"]["status"] != before["outcome"]["status"]
    for name in [*old, *(name for name in new if name not in old)]:
        a, b = old.get(name), new.get(name)
        same, timed = same_number(a, b), is_timed(name)
        differ |= not same and not timed
        table.add_row(name, str(a), str(b), "" if same else ("varies by nature" if timed else "DIFFERS"))
    Console().print(table)
    keys = [[stage["key"] for stage in record["stages"]] for record in (before, after)]
    moved = [key for key, *_ in differences(_circumstances(before), _circumstances(after), "")]
    changed = ", ".join(dict.fromkeys(key.split(".")[1] for key in moved)) or "nothing that was recorded"
    if keys[0] != keys[1]:
        print(f"the keys of the stages differ; changed since: {changed}")
    elif differ:
        print(f"the keys of the stages are the same; what else differs: {changed}")
    print("reproduced" if not differ else "not reproduced")
    return 1 if differ else 0
