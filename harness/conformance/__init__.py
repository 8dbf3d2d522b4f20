"""Conformance suites: what every method of an axis must do. Run them with `harness check PACKAGE`."""
