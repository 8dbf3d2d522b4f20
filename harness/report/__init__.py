"""Frames, statistics, tables, figures and the page; computed from records alone."""

from harness.callable import call_as

call_as(__name__, "harness.api.reporting:report")
