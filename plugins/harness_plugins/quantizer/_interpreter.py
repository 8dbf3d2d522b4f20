"""Another Python interpreter, for libraries that cannot share this one's environment."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from harness import DataError, HarnessError

PROBE = """
import json
found = {"library": None, "cuda": False}
try:
    from importlib.metadata import version
    number = version("LIBRARY")
    import torch
    import LIBRARY
    found = {"library": number, "cuda": torch.cuda.is_available()}
except Exception as error:
    found["error"] = f"{type(error).__name__}: {error}"
print(json.dumps(found))
"""

PATIENCE = 300
"""Seconds that a library may take to be imported."""


@cache
def probe(python: str, library: str) -> dict[str, Any]:
    """Version of a library in an interpreter and whether it sees CUDA: {library, cuda, error}."""
    if not Path(python).is_file():
        return missing(f"there is no interpreter at {python}")
    command = [*isolated(python), "-c", PROBE.replace("LIBRARY", library)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        found: dict[str, Any] = json.loads(done.stdout.strip().rpartition("\n")[2])
    except OSError as error:
        return missing(f"{python} is no interpreter: {error}")
    except subprocess.TimeoutExpired:
        return missing(f"importing it there took more than {PATIENCE} s; try again when the machine is idle")
    except ValueError:
        return missing((done.stderr or done.stdout).strip()[-300:] or "it printed nothing")
    return found


def missing(why: str) -> dict[str, Any]:
    """What is known of a library that cannot be asked for."""
    return {"library": None, "cuda": False, "error": why}


@cache
def packages(python: str) -> dict[str, Path]:
    """What states the packages that an interpreter finds, by `<name>-<version>.dist-info/METADATA`.

    Raises: DataError where it does not run
    """
    code = "import sysconfig; print(sysconfig.get_path('purelib')); print(sysconfig.get_path('platlib'))"
    try:
        done = subprocess.run([*isolated(python), "-c", code], capture_output=True, text=True, timeout=60)
    except OSError as error:
        raise DataError(f"{python} is no interpreter: {error}") from error
    folders = {Path(line) for line in done.stdout.splitlines() if line}
    files = (file for folder in folders for file in folder.glob("*.dist-info/METADATA"))
    return {f"{file.parent.name}/{file.name}": file for file in sorted(files)}


def isolated(python: str) -> list[str]:
    """The interpreter with its own packages alone: a plugin beside the script has the library's name."""
    return [str(Path(python).absolute()), "-I"]


def call(python: str, script: Path, *arguments: str, within: Path) -> None:
    """Run a script in the interpreter to its end, in the folder that gets what its library leaves (logs).

    Raises: HarnessError with the last lines of what it said
    """
    command = [*isolated(python), str(script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=within)
    if done.returncode:
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-8:])
        raise HarnessError(f"{python} {script.name} ended with {done.returncode}:\n{said}")
