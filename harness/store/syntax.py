"""What decides of a source file: its syntax tree as text, without what changes no run, and its imports.

The text is that of `ast.dump` in Python 3.11, in every Python, in half of its time: a plan in a new store
reads some hundred files.
"""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from typing import Any

REPORTED = {"decontaminates", "moves_facts"}
"""What a contract declares for those who read records: no run rests on it, so it is left out of the hash."""


def read(tree: ast.Module) -> tuple[str, list[list[Any]]]:
    """The hash of a syntax tree without docstrings, comments, places and what is declared for reports alone;
    and its imports anywhere as [level, module, names], those for type checkers left out.
    """
    imports: list[list[Any]] = []
    text = _text(tree, imports)
    return hashlib.sha256(text.encode()).hexdigest(), imports


def _text(value: Any, imports: list[list[Any]] | None) -> str:
    """A node as text; imports below it are added to the list, if there is one."""
    if isinstance(value, list):
        return f"[{', '.join([_text(item, imports) for item in value])}]"
    if not isinstance(value, ast.AST):
        return repr(value)
    kind: Any = type(value)
    if isinstance(value, ast.Import):
        _note(imports, *([0, alias.name, []] for alias in value.names))
    elif isinstance(value, ast.ImportFrom):
        names = [alias.name for alias in value.names]
        _note(imports, [value.level, value.module or "", names])
    parts = []
    guarded = False
    for name, optional in _fields(kind):
        inner = getattr(value, name)
        if inner is None and optional:
            continue
        if name == "body" and isinstance(inner, list):
            told = kind is ast.ClassDef
            inner = [s for s in inner if not (_is_text(s) or (told and _is_reported(s)))]
        text = _text(inner, None if guarded and name == "body" else imports)
        guarded = guarded or (kind is ast.If and name == "test" and "TYPE_CHECKING" in text)
        parts.append(f"{name}={text}")
    return f"{kind.__name__}({', '.join(parts)})"


@cache
def _fields(kind: Any) -> tuple[tuple[str, bool], ...]:
    """Names of fields, and whether one that is None is left out."""
    return tuple((name, getattr(kind, name, ...) is None) for name in kind._fields)


def _note(imports: list[list[Any]] | None, *found: list[Any]) -> None:
    if imports is not None:
        imports.extend(found)


def _is_text(statement: ast.AST) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _is_reported(statement: ast.AST) -> bool:
    """Whether a statement of a class assigns one of REPORTED."""
    if not isinstance(statement, ast.Assign | ast.AnnAssign):
        return False
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return all(isinstance(target, ast.Name) and target.id in REPORTED for target in targets)
