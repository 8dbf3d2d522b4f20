"""One page a stage, and the list of them."""

from __future__ import annotations

import shlex

from harness.commands.reference.examples import mounted, stage_example
from harness.commands.reference.known import axes, stages
from harness.commands.reference.markdown import NOTICE, about, row, table, text
from harness.compose.describe import options
from harness.compose.schema import mounted_axes, stage_axes, stage_key
from harness.method import Method
from harness.registry.known import registry
from harness.stage import Stage


def stages_page() -> str:
    lines = [
        "# Stages",
        "",
        NOTICE,
        "",
        "The steps of a cell in their default order. A stage is a pure function of its options, its inputs",
        "and a seed; two cells that agree in what a stage reads share it. `stages: [...]` of an experiment",
        "chooses and orders them.",
        "",
        "| stage | what it does | reads | makes |",
        "|---|---|---|---|",
    ]
    for name, stage in stages().items():
        needed = ", ".join([*stage.needs, *(f"({kind})" for kind in stage.may_need)]) or "-"
        lines.append(row(f"[{name}]({name}.md)", summary(stage), needed, stage.produces))
    return text([*lines, "", "In brackets: read where an earlier stage made one."])


def stage_page(stage: type[Stage]) -> str:
    name, key = stage.name, stage_key(stage.name)
    read = [f"[{axis}](../axes/{axis}.md)" for axis in stage_axes(name) if axis in axes()]
    own = [axis for axis in mounted_axes(name) if not registry().axes[axis].many]
    lines = [
        f"# {name}",
        "",
        NOTICE,
        "",
        *about(stage),
        f"- Reads: {_kinds(stage)}",
        f"- Makes: {stage.produces}",
        f"- Axes in its key: {', '.join(read)}",
        f"- Its result {'may depend' if stage.seeded else 'does not depend'} on the seed",
        "",
        "```console",
        f"$ harness run {shlex.join(filter(None, (stage_example(name), 'scale=smoke')))}",
        "```",
        "",
        "## Options",
        "",
        *table(options(stage.Config), key),
    ]
    if own:
        lines += [
            "",
            "It trains, so it may have choices of its own where the root's are not wanted, e.g. "
            f"`{mounted(own[0], key)}`: {', '.join(f'`{axis}`' for axis in own)}.",
        ]
    return text(lines)


def _kinds(stage: type[Stage]) -> str:
    makers: dict[str, list[str]] = {}
    for name, other in stages().items():
        makers.setdefault(other.produces, []).append(name)
    found = [
        *((kind, "") for kind in stage.needs),
        *((kind, ", where there are any") for kind in stage.may_need),
    ]
    texts = []
    for kind, note in found:
        links = ", ".join(
            f"[{name}](../stages/{name}.md)" for name in makers.get(kind, ()) if name != stage.name
        )
        texts.append(f"{kind} (of {links}{note})" if links else f"{kind}{note}")
    return "; ".join(texts) or "nothing that another stage made"


def summary(stage: type[Stage]) -> str:
    return Method.summary.__func__(stage)  # type: ignore[attr-defined,no-any-return]
