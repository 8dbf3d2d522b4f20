"""Frames, statistics, tables, figures and the page; computed from records alone."""
