"""The public surface, and the gallery of committed reports."""

from __future__ import annotations

import harness
from harness.commands.reference.known import REAL, REPORTS, asked, verdicts
from harness.commands.reference.markdown import NOTICE, row, text

CALLED = ("harness.api", "harness.report", "harness.plan", "harness.run")
"""Where what a caller uses lies; the rest of the surface is for plugins."""
FIGURES = {"scaling_law": "the fitted law", "marginal_effects": "what each choice changes"}
"""Of the figures that a report may have, those that show its question, the best first."""


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
    """The committed reports by question, what their claims came to, and one figure each."""
    lines = [
        "# Gallery of reports",
        "",
        NOTICE,
        "",
        "Each is one YAML in `conf/experiment`, run on two cores; its page opens the record behind every",
        "number, and works from a folder without a server. Models of 0.05 to 1 M parameters say what they",
        "can: where a claim of a paper does not show at this size, the report says so. Where the same",
        "question was asked of a released model, that stands beside it",
        "([what toy models cannot show](real.md)).",
    ]
    made = {path.parent.name for path in REPORTS.glob("*/records.json.gz")}
    for name in sorted({report.removesuffix(REAL) for report in made}):
        small, real = (report if report in made else "" for report in (name, name + REAL))
        lines += ["", f"## {name.replace('_', ' ').capitalize()}", "", asked(REPORTS / (small or real)), ""]
        if small and real:
            lines += [row("small models", "a released model"), "|---|---|"]
            lines += [row(_came_to(small), _came_to(real)), row(_figure(small), _figure(real))]
        else:
            lines += [f"{_came_to(small or real)}.", "", _figure(small or real)]
    return text(lines)


def _came_to(report: str) -> str:
    """A link to a report, and what it says of its claims."""
    found = verdicts(REPORTS / report)
    counted = [f"{number} {said}" for said in sorted({*found}) if (number := found.count(said))]
    claims = f" on {len(found)} claims: {', '.join(counted)}" if found else ""
    return f"[The report](../reports/{report}/README.md){claims}"


def _figure(report: str) -> str:
    """The figure that shows a report's question best; no text where it has none."""
    for name, what in FIGURES.items():
        if (REPORTS / report / "figures" / f"{name}.svg").is_file():
            return f"![{report.replace('_', ' ')}: {what}](../reports/{report}/figures/{name}.svg)"
    return ""
