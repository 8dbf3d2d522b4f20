"""Kernels, masks, caches, rotary arithmetic; knows no axis."""
