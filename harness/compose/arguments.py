"""What a command line says of where configs lie: `--config-dir`, `hydra.searchpath`, `experiment=./my.yaml`.

Every command reads it here, once; what comes out are plain overrides that compose alike everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from harness.errors import ConfigError

SEARCH = "hydra.searchpath"
LAUNCHER = "hydra/launcher="
_CONFIG_DIR = ("--config-dir", "-cd")
_OUTPUT = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.output_subdir", "hydra.job.chdir")
_PACKAGE = re.compile(r"^#\s*@package\s+(\S+)", re.MULTILINE)


def standing(arguments: Sequence[str]) -> list[str]:
    """The arguments with folders of configs as one absolute `hydra.searchpath`, and files by absolute path.

    Raises: ConfigError where a folder or file is not there, or an option of Hydra's has no effect here
    """
    folders, rest, waiting = [], [], False
    for text in arguments:
        flag, equals, value = text.partition("=")
        if waiting:
            folders.append(text)
            waiting = False
        elif flag in _CONFIG_DIR:
            folders += [value] if equals else []
            waiting = not equals
        elif flag.lstrip("+") == SEARCH:
            folders += _listed(text)
        else:
            rest.append(text)
    if waiting:
        raise ConfigError("--config-dir takes a folder: --config-dir my_conf")
    _refuse_output(rest)
    rest = [_file_absolute(text) for text in rest]
    search = [_folder_absolute(folder) for folder in folders]
    return [*rest, f"{SEARCH}=[{','.join(search)}]"] if search else rest


def job_overrides(arguments: Iterable[str]) -> list[str]:
    """A command line without what belongs to Hydra itself, but for where configs lie."""
    own = ("hydra.", "hydra/")
    return [t for t in arguments if t.startswith(SEARCH) or not t.lstrip("+~").startswith(own)]


def publish_file(override: str) -> None:
    """Make `experiment=/absolute/path.yaml` a choice that Hydra composes like one of its own.

    Raises: ConfigError where the file is not there or holds no mapping
    """
    key, _, value = override.partition("=")
    if not _is_file(key, value):
        return
    path = Path(value)
    try:
        node = OmegaConf.load(path)
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{override}: {error.strerror}: {path}") from error
    except Exception as error:  # PyYAML's errors share no base with OmegaConf's
        raise ConfigError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(node, DictConfig):
        raise ConfigError(f"{path} must hold a mapping, e.g. `factors: {{attention: [full, multi_query]}}`")
    package = _PACKAGE.search(text)
    ConfigStore.instance().store(
        group=f"{key.lstrip('+')}{path.parent}",
        name=path.name,
        node=node,
        package=package[1] if package else "_global_",
        provider=str(path),
    )


def refuse_flags(words: Sequence[str]) -> None:
    """Refuse flags among what should be overrides: each command, and Hydra, has read its own before.

    Raises: ConfigError
    """
    for text in words:
        if text.startswith("-"):
            raise ConfigError(
                f"{text} is no flag of this command (--help lists them); Hydra's own, as -m, --cfg job and "
                "--info, stand alone: python -m harness --cfg job"
            )


def file_of(config: str, overrides: Iterable[str]) -> str:
    """The file of a config as Hydra names it; one of a user's is called by its path."""
    _, elsewhere, path = config.partition("//")
    if elsewhere:
        return f"/{path}"
    folders = [folder for text in overrides if text.startswith(SEARCH) for folder in _listed(text)]
    own = (Path(folder.removeprefix("file://")) / f"{config}.yaml" for folder in folders)
    return next((str(file) for file in own if file.is_file()), f"conf/{config}.yaml")


def experiment_name(choice: str | None) -> str:
    """The name of a chosen experiment; of a file, its own without suffix."""
    if choice is None:
        return ""
    return Path(choice).stem if choice.endswith((".yaml", ".yml")) else choice


def _is_file(key: str, value: str) -> bool:
    return key.lstrip("+") == "experiment" and value.endswith((".yaml", ".yml"))


def _file_absolute(text: str) -> str:
    key, _, value = text.partition("=")
    if key.lstrip("+") != "experiment":
        return text
    value = value.strip("'\"")
    if value.startswith(("./", "../", "/", "~/")) and not value.endswith((".yaml", ".yml")):
        value += ".yaml"
    if not _is_file(key, value):
        return text
    path = Path(value).expanduser().resolve()
    if not path.is_file():
        raise ConfigError(f"{text}: there is no file {path}")
    return f"{key}={path}"


def _folder_absolute(folder: str) -> str:
    if "://" in folder and not folder.startswith("file://"):
        return folder
    path = Path(folder.removeprefix("file://")).expanduser().resolve()
    if not path.is_dir():
        raise ConfigError(
            f"{folder} is no folder of configs; one holds experiment/<name>.yaml, model/<name>.yaml and such"
        )
    return f"file://{path}"


def _listed(text: str) -> list[str]:
    """The folders that `hydra.searchpath=[...]` names."""
    try:
        value = OverridesParser.create().parse_override(text).value()
    except HydraException as error:
        raise ConfigError(f"{text}: write {SEARCH}=[folder,...]") from error
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def _refuse_output(arguments: Sequence[str]) -> None:
    """Options of Hydra's output folders, which nothing here writes.

    `hydra.sweep.dir` is where a launcher keeps its own files, where one is chosen
    """
    places = any(text.startswith(LAUNCHER) and not text.endswith("=basic") for text in arguments)
    for text in arguments:
        key = text.partition("=")[0].lstrip("+")
        if key in _OUTPUT and not (places and key == "hydra.sweep.dir"):
            raise ConfigError(
                f"{text} has no effect: results go to the store (HARNESS_STORE=DIR) and reports where "
                "`harness report --out DIR` says; drop it"
                + (" or choose a launcher, whose files it places" if key == "hydra.sweep.dir" else "")
            )
