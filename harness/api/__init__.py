"""The command line as functions, for notebooks and scripts: `harness.plan(...)`, `harness.sweep(...)`, ..."""
