"""Thirteen configurations of our model, which differ in how they read, keep and place their past."""

import torch
from composed import tiny

ENCODER = {"architecture": "encoder_decoder", "shape": {"num_encoder_layers": 2}}
CONFIGURATIONS = {
    "default": {},
    "prefix": {"architecture": "prefix_decoder"},
    "encoder": ENCODER,
    "latent": {"attention": ("multi_head_latent", {"rope_dim": 4})},
    "grouped": {"attention": "grouped_query", "position": "xpos"},
    "window": {"attention": ("sliding_window", {"window": 4}), "position": "alibi"},
    "paged": {"attention": "paged", "position": "learned"},
    "linear": {"attention": "linear"},
    "retention": {"attention": "retention", "feed_forward": "moe_switch"},
    "gated": {"attention": "gated_linear", "position": "nope"},
    "mamba2": {"attention": "mamba2", "position": "nope"},
    "relative": {"position": "relative_xl", "norm_position": "sandwich"},
    "t5": {**ENCODER, "position": "relative_t5", "feed_forward": "relu"},
}
RECURRENT = ("linear", "retention", "gated", "mamba2")
"""Those that keep a state: without weights to show, and without keys."""


def model_of(name, **more):
    return tiny(**{**CONFIGURATIONS[name], **more})


def inputs_of(model, length=9):
    """Two rows, the first padded on the left, with what the architecture reads besides."""
    ids = torch.randint(1, 64, (2, length), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    inputs["attention_mask"][0, :2] = 0
    if model.model.encoder is not None:
        inputs |= {"encoder_input_ids": ids.flip(1), "encoder_attention_mask": torch.ones_like(ids)}
    if model.model.architecture.uses_prefix():
        inputs["prefix_length"] = torch.tensor([3, 4])
    return inputs
