"""The public surface, and the gallery of committed reports."""

from __future__ import annotations

import harness
from harness.commands.reference.known import REAL, REPORTS, question
from harness.commands.reference.markdown import NOTICE, text

CALLED = ("harness.api", "harness.report", "harness.plan", "harness.run")
"""Where what a caller uses lies; the rest of the surface is for plugins."""


def api_page() -> str:
    """The public surface, by the module that each name comes from."""
    by_module: dict[str, list[str]] = {}
    for name, module in harness._PUBLIC.items():
        by_module.setdefault(module, []).append(name)
    lines = [
        "# Python API",
        "",
        NOTICE,
        "",
        "All of it is imported from `harness`, on demand: `import harness` loads neither torch nor Hydra.",
        "What is not here is not public, and may change.",
    ]
    callers = [module for module in by_module if module.startswith(CALLED)]
    for title, modules in (
        ("In a script or a notebook", sorted(callers)),
        ("In a plugin", sorted(set(by_module) - set(callers))),
    ):
        lines += ["", f"## {title}"]
        for module in modules:
            lines += ["", f"::: {module}", "    options:", "      show_root_heading: false"]
            lines += [
                "      show_root_toc_entry: false",
                f"      members: [{', '.join(sorted(by_module[module]))}]",
            ]
    return text(lines)


def gallery_page() -> str:
    """The committed reports, each with its question and one figure."""
    lines = [
        "# Gallery of reports",
        "",
        NOTICE,
        "",
        "Each is one YAML in `conf/experiment`, run on two cores; its page opens the record behind every",
        "number, and works from a folder without a server. Models of 0.05 to 1 M parameters say what they",
        "can: where a claim of a paper does not show at this size, the report says so. Beside some stands",
        "the same question asked of a released model ([what toy models cannot show](real.md)).",
    ]
    for folder in sorted(path.parent for path in REPORTS.glob("*/records.json.gz")):
        name, title = folder.name, folder.name.removesuffix(REAL).replace("_", " ").capitalize()
        title += ", a released model" if name.endswith(REAL) else ""
        lines += ["", f"## {title}", "", f"{question(name)} [Open the report](../reports/{name}/README.md)"]
        figure = folder / "figures" / "marginal_effects.svg"
        if figure.is_file():
            lines += ["", f"![{title}: what each choice changes](../reports/{name}/figures/{figure.name})"]
    return text(lines)
