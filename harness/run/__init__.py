"""Who runs a plan, where, and what came of it: workers, isolation, placement, progress, records."""
