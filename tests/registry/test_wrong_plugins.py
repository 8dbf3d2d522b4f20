"""Plugins that load but are wrong: each is quarantined under its name, and no command minds the others."""

from __future__ import annotations
