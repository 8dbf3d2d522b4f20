"""lm-eval tasks by name: shipped offline ones, a user's own folder, or lm-eval's; on local files if asked."""

from __future__ import annotations

import difflib
import importlib.util
import os
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import yaml

from harness.data.item_texts import strings
from harness.data.reading import ROWS, read_rows
from harness.errors import DataError, TaskError
from harness.evaluation.items import ITEMS
from harness.forms import misfit
from harness.paths import listed

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

OWN = Path(__file__).parent / "tasks"
_NAMED = re.compile(rb"^[\"']?(?:task|group)[\"']?: *[\"']?([\w.:-]+)[\"']? *$", re.MULTILINE)
_TAGGED = re.compile(rb"^[\"']?tag[\"']?: *([\w.:-]+)? *\n((?: *- *[\w.:\"'-]+ *\n)*)", re.MULTILINE)
_DATA_SET = re.compile(r"^[\"']?dataset_path[\"']?: *[\"']?([\w./-]+)", re.MULTILINE)
_INCLUDE = re.compile(r"^[\"']?include[\"']?: *[\"']?([\w./-]+)", re.MULTILINE)
_METRIC = re.compile(r"^ *- metric: *[\"']?([\w.]+)", re.MULTILINE)
_FILES = ("arrow", "csv", "json", "parquet", "text")
"""Values of `dataset_path` that read local files."""
_CALLS = re.compile(r"!function\b|^class:", re.MULTILINE)


def own_tasks() -> list[str]:
    """Names of the offline tasks that ship with the harness."""
    return sorted(path.stem for path in OWN.glob("*.yaml"))


def own_origin(task: str) -> str | None:
    """Where an offline task of ours has its items from: `generated`, or the corpus's `documents`; None for
    any other task.
    """
    file = OWN / f"{task}.yaml"
    if not file.is_file():
        return None
    return "generated" if "items.skill" in file.read_text(encoding="utf-8") else "documents"


def own_metrics(task: str) -> list[str] | None:
    """Metrics of an offline task that ships with the harness; None for any other."""
    file = OWN / f"{task}.yaml"
    return _METRIC.findall(file.read_text(encoding="utf-8")) if file.is_file() else None


class Folder(NamedTuple):
    """What the YAML of a folder names, found without importing lm-eval."""

    files: dict[str, Path]
    """Task or group -> its file."""
    tags: set[str]


@lru_cache(maxsize=8)
def index(folder: Path) -> Folder:
    """Tasks, groups and tags of a folder; one pass over its files."""
    files: dict[str, Path] = {}
    tags: set[str] = set()
    for path in sorted(folder.rglob("*.yaml")):
        text = path.read_bytes()
        for name in _NAMED.findall(text):
            files.setdefault(name.decode(), path)
        for single, several in _TAGGED.findall(text):
            tags.update(tag.strip(b" -\"'").decode() for tag in (single, *several.splitlines()) if tag)
    return Folder(files, tags)


def lm_eval_folder() -> Path:
    """The folder of lm-eval's own tasks, found without importing it."""
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or spec.origin is None:
        raise TaskError("lm-eval is not installed; pip install 'lm-eval>=0.4.11,<0.5'")
    return Path(spec.origin).parent / "tasks"


def find_task(name: str, *, include_path: str = "") -> Path | None:
    """The YAML of a task or group; None for a tag, which has no file of its own.

    Raises: TaskError with a suggestion where nothing has this name
    """
    folders = [Path(include_path).expanduser()] if include_path else []
    if folders and not folders[0].is_dir():
        raise TaskError(f"evaluator.lm_eval.include_path={include_path} is not a folder")
    known: list[str] = []
    for folder in (OWN, *folders, lm_eval_folder()):
        found = index(folder)
        if name in found.files:
            return found.files[name]
        if name in found.tags:
            return None
        known += found.files
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    raise TaskError(
        f"No lm-eval task is called '{name}'.{hint} Offline tasks: {', '.join(own_tasks())}; "
        "all others: lm_eval ls tasks. Your own YAML: evaluator.lm_eval.include_path=FOLDER"
    )


def hub_data(path: Path) -> str | None:
    """The data set that the task of a YAML takes from the hub; None where it names none, as a group does."""
    text = path.read_text(encoding="utf-8", errors="replace")
    named, template = _DATA_SET.search(text), _INCLUDE.search(text)
    if named is None:
        return None if template is None else hub_data(path.parent / template[1])
    return None if named[1] in _FILES or Path(named[1]).exists() else named[1]


def task_files(name: str, *, include_path: str = "") -> dict[str, Path]:
    """Local files that the YAML of a task of one's own, or of ours on files, names by the path it gives.

    Raises: TaskError where there is no such task; DataError where a file is not there
    """
    folders = [OWN / "on_files", *([Path(include_path).expanduser()] if include_path else [])]
    waiting = [find_task(name, include_path=include_path)]
    found: dict[str, Path] = {}
    seen: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path is None or path in seen or not any(path.is_relative_to(folder) for folder in folders):
            continue  # the others that ship with the harness or lm-eval name no local file
        seen.add(path)
        stated = _stated(path)
        if "include" in stated:
            included = path.parent / stated["include"]
            found |= listed(str(included), option=f"include in {path}")
            waiting.append(included)
        members = stated.get("task")
        for member in members if isinstance(members, list) else ():
            named = member if isinstance(member, str) else member.get("task")
            if isinstance(named, str):
                waiting.append(find_task(named, include_path=include_path))
        options = stated.get("dataset_kwargs") or {}
        for value in strings([options.get("data_files"), options.get("data_dir")]):
            if "://" not in value:
                found |= listed(value, option=f"data_files in {path}")
        source = stated.get("dataset_path")
        if isinstance(source, str) and source not in _FILES and Path(source).exists():
            found |= listed(source, option=f"dataset_path in {path}")
    return found


def stated_tasks(name: str, *, include_path: str = "") -> list[dict[str, Any]]:
    """What the YAML of a task, or of each task of a group, says with what it includes; nothing of a tag.

    Raises: TaskError where there is no such task
    """
    path = find_task(name, include_path=include_path)
    if path is None:
        return []
    stated = _whole(path)
    members = stated.get("task")
    if not isinstance(members, list):
        return [stated]
    found: list[dict[str, Any]] = []
    for member in members:
        named = member if isinstance(member, str) else member.get("task")
        if isinstance(named, str):
            found += stated_tasks(named, include_path=include_path)
    return found


def _whole(path: Path) -> dict[str, Any]:
    """The YAML of a task with what it includes."""
    stated: dict[str, Any] = dict(_stated(path))
    if "include" not in stated:
        return stated
    return {**_whole(path.parent / str(stated["include"])), **stated}


class _Task(TypedDict, total=False):
    """What of a task's or group's YAML says where its data lie; lm-eval reads the rest."""

    include: str
    task: str | list[str | dict[str, Any]]
    dataset_path: str | None
    dataset_kwargs: dict[str, Any] | None


def _stated(path: Path) -> dict[str, Any]:
    """The YAML of a task.

    Raises: DataError where it is none
    """
    try:
        found = yaml.load(path.read_bytes(), Loader=_Tolerant) or {}
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if wrong := misfit(found, _Task):
        raise DataError(f"{path} is no task of lm-eval: {wrong}")
    return found  # type: ignore[no-any-return]


class _Tolerant(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads `!function` and the like as nothing; by libyaml, where it is there, ten times as fast."""


_Tolerant.add_multi_constructor("!", lambda loader, suffix, node: None)


def is_cached(data_set: str) -> bool:
    """Whether the libraries' caches on this machine know a data set of the hub."""
    from huggingface_hub.constants import HF_HOME, HF_HUB_CACHE

    prepared = Path(os.environ.get("HF_DATASETS_CACHE", Path(HF_HOME) / "datasets"))
    downloaded = Path(HF_HUB_CACHE) / f"datasets--{data_set.replace('/', '--')}"
    return downloaded.is_dir() or (prepared / data_set.replace("/", "___")).is_dir()


def without_data(name: str, reason: str) -> str:
    """What to say of a task whose data cannot be had."""
    return (
        f"the data of lm-eval task '{name}' cannot be had without a network ({reason}). Run once online with "
        f"HF_HUB_OFFLINE=0 so that it is cached, or give local files: "
        f"+evaluator.lm_eval.data_files.{name}.test=FILE.jsonl"
    )


def load_task(
    name: str, *, include_path: str = "", data_files: Mapping[str, str] | None = None, trust: bool = False
) -> dict[str, Any]:
    """lm-eval's dictionary of one task, or of a group's tasks.

    `data_files` (split -> local JSON or JSON lines, gzipped or not) replaces the task's data set.
    Raises: TaskError where the task does not exist, its data cannot be had, or its code is not trusted
    """
    path = find_task(name, include_path=include_path)
    if include_path and path is not None and Path(include_path).expanduser() in path.parents and not trust:
        _refuse_code(path)
    overrides = {"custom_dataset": local_data(data_files)} if data_files else None
    defaults = path is None or (path.is_relative_to(lm_eval_folder()) and _is_group(path))
    manager = _manager(include_path, defaults)
    if path is None:
        entry = manager.task_index[name]
    else:
        from lm_eval.tasks._index import TaskIndex

        entry = manager.task_index.get(name) or TaskIndex.entry_from_path(path)
    try:
        built = manager._factory.build(entry, overrides=overrides, registry=manager.task_index)
    except (TaskError, DataError):
        raise
    except Exception as error:
        if _is_about_network(error):
            raise TaskError(without_data(name, type(error).__name__)) from error
        raise TaskError(f"lm-eval task '{name}' does not load: {type(error).__name__}: {error}") from error
    return manager.load(built if isinstance(built, list) else [built])  # type: ignore[no-any-return]


def local_data(files: Mapping[str, str]) -> Any:
    """A function that lm-eval calls for the data set: split -> rows of a local file."""

    def dataset(**_: Any) -> dict[str, Any]:
        from datasets import Dataset

        return {split: Dataset.from_list(item_rows(Path(file))) for split, file in files.items()}

    return dataset


def item_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a file as `read_rows` takes them; of a JSON object with one list of objects in it, those.

    Raises: DataError naming file and line
    """
    path = path.expanduser()
    if not path.is_file():
        raise DataError(f"{path} does not exist; give a file that ends in one of {', '.join(ROWS)}")
    rows = list(read_rows(path))
    if len(rows) == 1:
        lists = [value for value in rows[0].values() if not misfit(value, list[dict[str, Any]])]
        rows = lists[0] if len(lists) == 1 else rows
    return rows


def count_items(name: str, files: Mapping[str, str] | None) -> int | None:
    """Items of a task that draws its own or reads local files; None where only its data set knows.

    Raises: DataError naming file and line
    """
    if files:
        return len(item_rows(Path(files.get("test") or next(iter(files.values())))))
    return ITEMS if name in own_tasks() else None


@lru_cache(maxsize=8)
def _manager(include_path: str, defaults: bool) -> TaskManager:
    """One index a process; with lm-eval's defaults it costs 9 s, without 1 ms."""
    from lm_eval.tasks import TaskManager

    folders = [str(OWN), *([include_path] if include_path else [])]
    return TaskManager(include_path=folders, include_defaults=defaults)


def _is_group(path: Path) -> bool:
    return re.search(r"^group:", path.read_text(), re.MULTILINE) is not None


def _refuse_code(path: Path) -> None:
    files: Iterable[Path] = path.parent.rglob("*.yaml")
    calling = [file for file in files if _CALLS.search(file.read_text())]
    if calling:
        raise TaskError(
            f"{calling[0]} runs Python code of its own (!function); read it, then set "
            "evaluator.lm_eval.trust=true"
        )


def _is_about_network(error: BaseException) -> bool:
    names = {
        "ConnectionError", "ConnectTimeout", "ConnectError", "OfflineModeIsEnabled", "DatasetNotFoundError",
        "LocalEntryNotFoundError", "HfHubHTTPError", "MaxRetryError", "gaierror", "ProxyError",
    }  # fmt: skip
    seen: BaseException | None = error
    while seen is not None:
        if type(seen).__name__ in names:
            return True
        seen = seen.__cause__ or seen.__context__
    return False
