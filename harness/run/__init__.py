"""Who runs a plan, where, and what came of it: workers, isolation, placement, progress, records."""

from harness.callable import call_as

call_as(__name__, "harness.api.running:run")
