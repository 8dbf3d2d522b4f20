"""The store: content-addressed artifacts, claims on them, and records of cells."""

from harness.store.artifacts import Artifact, Store

__all__ = ["Artifact", "Store"]
