"""The text of scaffolded files; the method's signatures come from the contract itself."""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path

import harness
from harness.registry import registry


def method(axis: str, name: str) -> str:
    """A complete method file: what the contract demands is there, and says that it is to be written."""
    contract = registry().axes[axis]
    tree = ast.parse(Path(inspect.getfile(contract)).read_text(encoding="utf-8"))
    base = contract.__name__
    functions = _demanded(tree, base)
    imports = _imports(tree, functions, {base, "Method", "hookimpl"})
    class_name = "".join(word.capitalize() for word in name.split("_"))
    body = "\n\n".join(_indented(_stub(function)) for function in functions)
    return f'''"""{class_name}: say in one line what it does."""

{imports}


class {class_name}({base}):
    """One sentence that says what it is.

    Paper: authors and year, arXiv:0000.00000, section
    """

    name = "{name}"

    @dataclass(frozen=True, kw_only=True)
    class Config({base}.Config):
        """Options; a string under each field gives meaning and unit."""

    config: Config
{chr(10) + body + chr(10) if body else ""}

@hookimpl
def harness_methods() -> list[type[Method]]:
    return [{class_name}]
'''


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
dependencies = ["harness-lm>=0.1"]

[project.entry-points.harness]
{name} = "{module}"

[tool.hatch.build.targets.wheel]
packages = ["{module}"]
"""


def readme(package: str, axis: str, name: str) -> str:
    """README.md of a third-party package."""
    return f"""# {package}

`{axis}={name}` for harness.

    pip install -e .
    harness show {axis} {name}
    harness check {package}
"""


def _demanded(tree: ast.Module, base: str) -> list[ast.FunctionDef]:
    """What every choice must write: abstract methods, else the first one not implemented."""
    contract = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == base)
    functions = [n for n in contract.body if isinstance(n, ast.FunctionDef)]
    abstract = [f for f in functions if any("abstractmethod" in ast.unparse(d) for d in f.decorator_list)]
    return abstract or [f for f in functions if "NotImplementedError" in ast.unparse(f)][:1]


def _stub(function: ast.FunctionDef) -> str:
    """The signature with a body that says what is to be written."""
    kept = [d for d in function.decorator_list if "abstractmethod" not in ast.unparse(d)]
    doc = f'"""{ast.get_docstring(function, clean=False)}"""\n' if ast.get_docstring(function) else ""
    body = ast.parse(f'{doc}raise NotImplementedError("to be written")').body
    stub = ast.FunctionDef(**{**vars(function), "decorator_list": kept, "body": body})
    return ast.unparse(ast.fix_missing_locations(stub)).replace("'to be written'", '"to be written"')


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" if line else line for line in text.splitlines())


def _imports(tree: ast.Module, functions: list[ast.FunctionDef], public: set[str]) -> str:
    """Imports for the names that the signatures use, public ones from `harness` itself."""
    parts = [part for function in functions for part in (function.args, function.returns) if part]
    used = {node.id for part in parts for node in ast.walk(part) if isinstance(node, ast.Name)}
    public |= {name for name in used if name in harness._PUBLIC}
    standard: list[str] = []
    libraries: list[str] = []
    statements = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom | ast.Import)]
    for node in statements:
        for alias in node.names:
            if (alias.asname or alias.name).split(".")[0] in used - public:
                single = ast.unparse(_narrowed(node, alias))
                module = getattr(node, "module", None) or alias.name
                ours = module.split(".")[0] in sys.stdlib_module_names
                (standard if ours else libraries).append(single)
    groups = [
        ["from __future__ import annotations"],
        sorted({"from dataclasses import dataclass", *standard}),
        sorted(set(libraries)),
        [f"from harness import {', '.join(sorted(public, key=_rank))}"],
    ]
    return "\n\n".join("\n".join(group) for group in groups if group)


def _rank(name: str) -> tuple[bool, bool, str]:
    """The order of imported names: constants, classes, the rest."""
    return not name.isupper(), not name[0].isupper(), name


def _narrowed(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> ast.stmt:
    """An import of one name only."""
    if isinstance(node, ast.Import):
        return ast.Import(names=[alias])
    return ast.ImportFrom(module=node.module, names=[alias], level=node.level)
