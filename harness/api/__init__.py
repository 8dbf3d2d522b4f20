"""The command line as functions, for notebooks and scripts: `harness.plan(...)`, `harness.sweep(...)`, ..."""

from harness.notices import ask_for_quiet

ask_for_quiet()  # before a function loads libraries, which read their settings once
