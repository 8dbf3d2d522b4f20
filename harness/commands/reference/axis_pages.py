"""One page an axis, and the list of them."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Any

import harness
from harness.commands.reference.examples import example, mounted
from harness.commands.reference.known import REAL, REPORTS, axes, compared, own, question, readers, stages
from harness.commands.reference.markdown import NOTICE, about, plain, row, table, text
from harness.compose.describe import LABELS, describe, options, paragraph
from harness.compose.schema import mounted_axes, stage_key
from harness.method import Method
from harness.registry.known import registry

SHOWN = tuple(label for label in LABELS if label != "Paper")
"""Labelled lines printed under a method; its source stands in the table."""
KINDS = ("requires", "provides", "conflicts", "changes")
"""What a method says to the plan."""


def axes_page() -> str:
    lines = [
        "# Axes",
        "",
        NOTICE,
        "",
        f"{len(axes())} places where methods vary, in the order in which methods act. An axis is a group of",
        "the command line: `attention=full,grouped_query` crosses two of its methods with everything else.",
        "",
        "| axis | what varies | default | methods | read by |",
        "|---|---|---|--:|---|",
    ]
    for name, axis in axes().items():
        about_it = (axis.summary(), _default(axis), len(own(name)), _read_by(name))
        lines.append(row(f"[{name}]({name}.md)", *about_it))
    return text(lines)


def axis_page(name: str) -> str:
    axis = axes()[name]
    lines = [f"# {name}", "", NOTICE, "", *about(axis)]
    lines += [
        f"- Default: {_default(axis)}"
        + ("; takes an ordered list, each method at most once" if axis.many else ""),
        f"- Read by: {_read_by(name) or 'no stage; it acts while a cell runs, and enters no key'}",
        *([f"- `{name}=none` leaves it out"] if axis.optional else []),
        "",
        "```console",
        f"$ harness list {name}",
        *_commands(name, axis),
        "```",
        "",
        *_mounts(name),
        "| method | what it is | source |",
        "|---|---|---|",
    ]
    for method in own(name):
        lines.append(row(_method_link(method), method.summary(), paragraph(method, "Paper")))
    shared = options(axis.Config)
    if shared:
        lines += ["", "## Options of every method", "", *_option_table(shared, name, axis.many)]
    for method in own(name):
        lines += _method_section(method, {option["name"]: option for option in shared})
    lines += _compared_lines(name)
    return text(
        [
            *lines,
            "",
            "## Write one",
            "",
            f"```console\n$ harness new {name} my_{name}\n```",
            "",
            f"The contract is `{_contract(axis)}`. [Write a method](../write/method.md) says the rest.",
        ]
    )


def _read_by(name: str) -> str:
    return ", ".join(f"[{stage}](../stages/{stage}.md)" for stage in readers(name))


def _commands(name: str, axis: type[Method]) -> list[str]:
    way = example(name)
    if not way:
        return []
    chosen, *more = way
    other = chosen.partition("=")[2]
    baseline = "[" + ",".join(axis.default or ()) + "]" if axis.many else str(axis.default or "none")
    crossed = f"{name}={baseline},{other}"
    return [
        f"$ harness show {name} {other.strip('[]')}",
        f"$ harness run {shlex.join([chosen, *more, 'scale=smoke'])}",
        f"$ harness plan {shlex.join([crossed, *more, 'seed=0,1'])}",
    ]


def _mounts(name: str) -> list[str]:
    """How a training stage is given a choice of its own."""
    own = [stage for stage in stages() if name in mounted_axes(stage)]
    if not own or axes()[name].many:
        return []
    key = stage_key(own[-1])
    return [
        f"A stage that trains ({', '.join(own)}) takes the root's choice unless it has its own:",
        f"`{mounted(name, key)}`.",
        "",
    ]


def _method_link(method: type[Method]) -> str:
    return f"[`{method.name}`](#{method.name})" if _says_more(method) else f"`{method.name}`"


def _says_more(method: type[Method]) -> bool:
    """Whether a method has a section of its own, or the table says it all."""
    own = {option["name"] for option in options(method.Config)} - {
        option["name"] for option in options(axes()[method.axis].Config)
    }
    marks = any(getattr(method, kind) for kind in KINDS)
    return bool(own or marks or method.extra or any(paragraph(method, label) for label in SHOWN))


def _method_section(method: type[Method], shared: dict[str, dict[str, Any]]) -> list[str]:
    if not _says_more(method):
        return []
    about = describe(method, registry())
    lines = ["", f"## {method.name}", "", method.summary(), ""]
    lines += [f"- {label}: {plain(about['notes'][label])}" for label in SHOWN if label in about["notes"]]
    lines += [f"- {kind}: {', '.join(about[kind])}" for kind in KINDS if about[kind]]
    if method.extra:
        lines.append(f"- install: `pip install 'harness-lm[{method.extra}]'`")
    # An option of the axis is shown again where a method has another default.
    own = [option for option in about["options"] if option != shared.get(option["name"])]
    if own:
        lines += ["", *_option_table(own, method.axis, method.many, method.name)]
    return lines if lines[-1] else lines[:-1]


def _option_table(rows: Iterable[dict[str, Any]], axis: str, many: bool, method: str = "NAME") -> list[str]:
    prefix = f"{axis}.{method}" if many else axis
    return table(rows, prefix)


def _compared_lines(name: str) -> list[str]:
    found = compared(name)
    if not found:
        return []
    lines = ["", "## Compared in", ""]
    for experiment in found:
        links = [
            f"[{shown}](../../reports/{name}/README.md)"
            for name, shown in ((experiment, "report"), (experiment + REAL, "of a released model"))
            if (REPORTS / name / "README.md").is_file()
        ]
        link = f" ({', '.join(links)})" if links else ""
        lines.append(f"- `experiment={experiment}`: {question(experiment)}{link}")
    return lines


def _contract(axis: type[Method]) -> str:
    public = axis.__name__ in harness._PUBLIC
    return f"harness.{axis.__name__}" if public else f"{axis.__module__}.{axis.__name__}"


def _default(axis: type[Method]) -> str:
    if axis.many:
        return f"`[{', '.join(axis.default or ())}]`"
    return f"`{axis.default or 'none'}`"
