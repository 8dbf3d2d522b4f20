"""Plan, workers, isolation of cells."""
