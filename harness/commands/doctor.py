"""`harness doctor`: versions, devices, extras, plugins and the store, each with what is wrong."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

from harness.commands.output import answer
from harness.registry import index as registry_index
from harness.report.numbers import counted

LIBRARIES = (
    "harness-lm",
    "torch",
    "transformers",
    "tokenizers",
    "peft",
    "lm-eval",
    "hydra-core",
    "omegaconf",
    "pluggy",
    "wandb",
    "pandas",
    "pyarrow",
)


def main(arguments: Sequence[str]) -> int:
    """Print what is there; 1 if something keeps cells from running."""
    parser = argparse.ArgumentParser(prog="harness doctor", description="Report the environment.")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(list(arguments))
    report: dict[str, Any] = {
        "python": f"{platform.python_version()} ({sys.executable})",
        "platform": platform.platform(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "devices": _devices(),
        "extras": _extras(),
        "plugins": _plugins(),
        "store": _store(),
    }
    answer(json.dumps(report, indent=1) if asked.json else _text(report))
    return 1 if report["plugins"]["broken"] or not report["store"]["writable"] else 0


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _devices() -> dict[str, Any]:
    import torch

    devices: dict[str, Any] = {"cpu": f"{os.cpu_count()} cores, {_memory()}"}
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(i)
            devices[f"cuda:{i}"] = f"{about.name}, {about.total_memory / 2**30:.0f} GiB"
    else:
        devices["cuda"] = f"none (torch {torch.__version__} sees no GPU)"
    return devices


def _memory() -> str:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return "memory unknown"
    return f"{total / 2**30:.1f} GiB"


def _extras() -> dict[str, str]:
    """Each extra, installed or with the command that brings it."""
    names = distribution("harness-lm").metadata.get_all("Provides-Extra") or []
    present = {name: registry_index.has_extra("harness-lm", name) for name in names}
    return {name: "ok" if here else f"pip install 'harness-lm[{name}]'" for name, here in present.items()}


def _plugins() -> dict[str, Any]:
    index = registry_index.read(fresh=True)
    by_package: dict[str, int] = {}
    for method in index["methods"]:
        by_package[method["package"]] = by_package.get(method["package"], 0) + 1
    return {
        "methods": by_package,
        "broken": [item["message"] for item in index["quarantined"]],
        "printed": {item["module"]: item["text"] for item in index["printed"]},
    }


def _store() -> dict[str, Any]:
    root = Path(os.environ.get("HARNESS_STORE") or ".harness").absolute()
    existing = next(path for path in (root, *root.parents) if path.exists())
    artifacts = sum(1 for _ in root.glob("artifacts/*/*/artifact.json"))
    free = shutil.disk_usage(existing).free
    return {
        "path": str(root),
        "writable": os.access(existing, os.W_OK),
        "free": f"{free / 2**30:.1f} GiB",
        "artifacts": artifacts,
    }


def _text(report: dict[str, Any]) -> str:
    lines = [f"python     {report['python']}", f"platform   {report['platform']}"]
    for group in ("libraries", "devices", "extras"):
        lines += ["", group, *(f"  {name:<14} {text}" for name, text in report[group].items())]
    lines += [
        "",
        "plugins",
        *(f"  {name:<14} {n} methods" for name, n in report["plugins"]["methods"].items()),
    ]
    lines += [f"  ! {text}" for text in report["plugins"]["broken"]]
    for module, text in report["plugins"]["printed"].items():
        lines += [f"  {module} prints while it loads:", *(f"    {line}" for line in text.splitlines()[:5])]
    store = report["store"]
    state = (
        f"{counted(store['artifacts'], 'artifact')}, {store['free']} free"
        if store["writable"]
        else "not writable"
    )
    return "\n".join([*lines, "", f"store      {store['path']} ({state})"])
