"""The text of a scaffolded report layout, and the module by which a package offers it."""

from __future__ import annotations

LAYOUT = """\
# Say here what it shows. `report: {name}` in an experiment or `harness report SWEEP --table {name}`
title: {name}
# rows: [peft]          # factors down the side, in their order; all of them where nothing is said
# columns: [quantizer]  # factors along the top
metrics:
  - {{metric: bits_per_byte, label: bits per byte, optional: true}}
  - {{metric: loss, optional: true}}
"""

HOOK = '''"""The config folder of this package: experiments in `experiment/`, report layouts in `report/`."""

from harness import hookimpl


@hookimpl
def harness_conf() -> list[str]:
    return ["pkg://{module}.conf"]
'''


def layout(name: str) -> str:
    """The YAML of a layout."""
    return LAYOUT.format(name=name)


def hook(module: str) -> str:
    """The module that names the package's config folder."""
    return HOOK.format(module=module)
