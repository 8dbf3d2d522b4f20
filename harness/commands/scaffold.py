"""The text of scaffolded files. A method begins as a working one of its axis, renamed.

So it passes the conformance suites as it is written, and shows what its contract asks for; the author
changes it step by step, with the suites beside.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Mapping
from pathlib import Path

from harness.errors import ConfigError
from harness.method import Method
from harness.registry.known import registry
from harness.registry.modules import OWN


def method(axis: str, name: str, *, like: str | None, package: bool) -> dict[str, str]:
    """The files of a method by name: its own, and in a package the private helpers that it uses.

    It begins as the method `like`, by default the one of the axis that takes fewest lines.
    Raises: ConfigError, UnknownNameError for a `like` that cannot be copied
    """
    begun = _simplest(axis) if like is None else registry().get(axis, like)
    if registry().source(begun).package != OWN or begun.name == "none":
        raise ConfigError(f"--like {like}: begin with a built-in method of {axis}: `harness list {axis}`")
    file = Path(inspect.getfile(begun))
    helpers = _helpers(file) if package else {}
    return {f"{name}.py": _renamed(begun, file.read_text(encoding="utf-8"), name), **helpers}


def with_own_helpers(written: Mapping[str, str], name: str) -> dict[str, str]:
    """A method's files with private helpers of other names, where a package has changed those it has."""
    own = {file: f"_{name}{file}" if file.startswith("_") else file for file in written}
    found = {}
    for file, text in written.items():
        for before, after in own.items():
            text = text.replace(f"from .{before[:-3]} import", f"from .{after[:-3]} import")
        found[own[file]] = text
    return found


def test(axis: str, name: str) -> str:
    """A test that composes the method; facts against an oracle are for the author to add."""
    chosen = f"{axis}=[{name}]" if registry().axes[axis].many else f"{axis}={name}"
    return f'''"""Facts about {axis}={name}; compare it with independent code or with a closed form."""

from harness.compose import compose


def test_it_can_be_chosen() -> None:
    names = [choice.method.name for choice in compose(["{chosen}"]).choices("{axis}")]
    assert names == ["{name}"]
'''


def project(package: str, module: str, axis: str, name: str) -> str:
    """pyproject.toml of a third-party package."""
    return f"""[build-system]
requires = ["hatchling>=1.27"]
build-backend = "hatchling.build"

[project]
name = "{package}"
version = "0.1.0"
description = "{axis}={name} for harness"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["harness-lm>=0.1.dev0"]

[project.entry-points.harness]
{module} = "{module}"

[tool.hatch.build.targets.wheel]
packages = ["{module}"]
"""


def readme(package: str, axis: str, name: str, *, look: str) -> str:
    """README.md of a third-party package."""
    return f"""# {package}

`{axis}={name}` for harness.

    pip install -e .
    {look}
    harness check {package}
"""


def _simplest(axis: str) -> type[Method]:
    """The built-in method of an axis with the fewest lines, helpers too; without an extra where one can."""
    known = registry()
    own = [m for m in known.methods(axis).values() if known.source(m).package == OWN and m.name != "none"]
    if not own:
        raise ConfigError(f"{axis} has no built-in method to begin with; see the contract of its plugin")

    def cost(candidate: type[Method]) -> tuple[bool, int]:
        file = Path(inspect.getfile(candidate))
        texts = [file.read_text(encoding="utf-8"), *_helpers(file).values()]
        return candidate.extra is not None, sum(len(text.splitlines()) for text in texts)

    return min(own, key=cost)


def _renamed(begun: type[Method], text: str, name: str) -> str:
    """A method's file under another name, its first lines for the author to write."""
    words = "".join(word.capitalize() for word in name.split("_"))
    taken = set(re.findall(r"\w+", text))
    class_name = words if words not in taken else f"{words}Method"
    tree = ast.parse(text)
    first = tree.body[0]
    assert isinstance(first, ast.Expr), f"{begun.__module__} has no docstring"
    body = "\n".join(text.splitlines()[first.end_lineno :])
    body = re.sub(rf"(?<!\.)\b{begun.__name__}\b", class_name, body)  # not the library's class of that name
    body = re.sub(rf'(\n    name(?:: [\w\[\]]+)? = )"{begun.name}"', rf'\1"{name}"', body)
    body = re.sub(rf"\b{begun.axis}([=.]){begun.name}\b", rf"{begun.axis}\g<1>{name}", body)
    head = f'"""{class_name}: say here what it does; begun as {begun.axis}={begun.name}."""'
    return re.sub(r"from harness_plugins\.\w+\.(_\w+) import", r"from .\1 import", f"{head}\n{body}\n")


def _helpers(file: Path) -> dict[str, str]:
    """The private modules beside a file that it uses, and those that they use, by name."""
    found: dict[str, str] = {}
    pending = [file]
    while pending:
        for name in _private(ast.parse(pending.pop().read_text(encoding="utf-8"))):
            helper = file.with_name(f"{name}.py")
            if helper.name not in found:
                found[helper.name] = helper.read_text(encoding="utf-8")
                pending.append(helper)
    return found


def _private(tree: ast.Module) -> list[str]:
    """Names of the private modules beside it that a module imports."""
    modules = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            beside = node.level == 1 or (node.module or "").startswith("harness_plugins.")
            names = [(node.module or "").rpartition(".")[2], *(alias.name for alias in node.names)]
            modules += [
                name for name in names[: 1 if node.module else None] if beside and name.startswith("_")
            ]
    return modules
