"""Plan, workers, isolation of cells."""

from harness.callable import call_as

call_as(__name__, "harness.api.planning:plan")
