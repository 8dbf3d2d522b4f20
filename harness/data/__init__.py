"""Packing, token files, loaders, prompt templates."""
