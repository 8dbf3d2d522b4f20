"""Imported by the fork server alone: loads every plugin once, so that no child has to."""

from harness.registry.known import registry

registry()
