"""The suite of transformers for models, over configurations of ours; `make test-transformers` fetches it.

Their wheel leaves the tests out: TRANSFORMERS_SOURCE names an unpacked source distribution of the installed
version. That distribution holds the suite for models and not the one for generation; of a clone of the
repository, which holds both, both run.
"""

from __future__ import annotations

import os
import sys
import unittest
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from composed import tiny

SOURCE = os.environ.get("TRANSFORMERS_SOURCE", "")
if not SOURCE:
    pytest.skip(
        "TRANSFORMERS_SOURCE names no source of transformers: make test-transformers", allow_module_level=True
    )


def suite(module: str, name: str) -> Any:
    """A class of transformers' tests; an empty one where their sources come without that module."""
    package = "transformers_own_tests"
    if package not in sys.modules:
        sys.modules[package] = ModuleType(package)
        sys.modules[package].__path__ = [str(Path(SOURCE) / "tests")]
    path = package
    for part in module.split("."):
        path += f".{part}"
        if not list(Path(SOURCE, "tests").glob(path.split(".", 1)[1].replace(".", "/") + "*")):
            sys.modules[path] = ModuleType(path)
            sys.modules[path].__path__ = []
    found = sys.modules.get(path) or import_module(path)
    if not hasattr(found, name):
        setattr(found, name, type(name, (), {}))
    return getattr(found, name)


Exporting = suite("exporters.test_export", "ExportTesterMixin")
Generating = suite("generation.test_utils", "GenerationTesterMixin")
Modelling = suite("test_modeling_common", "ModelTesterMixin")

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "full": {},
    "grouped_query_qk_norm": {
        "attention": ("grouped_query", {"num_kv_heads": 2}),
        "shape": {"qk_norm": True, "tie_embeddings": False},
    },
    "gpt2": {"position": "learned", "norm": "layernorm", "feed_forward": "gelu", "shape": {"bias": True}},
    "bloom": {"position": "alibi", "norm": "layernorm", "shape": {"embedding_norm": True}},
    "falcon": {"attention": "multi_query", "shape": {"parallel_residual": True}},
    "deepnorm": {"norm": "deepnorm", "norm_position": "post", "position": "sinusoidal"},
    "sliding_window": {"attention": ("sliding_window", {"window": 4})},
    "latent": {"attention": ("multi_head_latent", {"latent_dim": 8, "rope_dim": 4})},
    "paged": {"attention": ("full", {"cache": "paged"})},
    "linear": {"attention": "linear"},
    "gated_linear": {"attention": "gated_linear", "position": "nope"},
    "mamba2": {"attention": ("mamba2", {"state_dim": 8}), "position": "nope"},
    "relative_xl": {"position": "relative_xl"},
    "experts": {"feed_forward": "moe_top_k"},
    "pattern": {"shape": {"layer_pattern": [{"attention": {"method": "sliding_window", "window": 4}}, {}]}},
    "prefix_decoder": {"architecture": "prefix_decoder"},
    "encoder_decoder": {
        "architecture": "encoder_decoder",
        "position": "relative_t5",
        "shape": {"num_encoder_layers": 2},
    },
}


class Inputs:
    """What the suite asks a model for: a small config and inputs that fit it."""

    batch_size, seq_length, is_training = 3, 7, True

    def __init__(self, name: str) -> None:
        made = tiny(**CONFIGURATIONS[name]).config
        self.config = type(made)(spec=made.spec, methods=made.methods, pad_token_id=0)
        self.vocab_size, self.hidden_size = self.config.vocab_size, self.config.hidden_size
        self.num_hidden_layers = self.config.num_hidden_layers
        self.num_attention_heads = self.config.num_attention_heads

    def prepare_config_and_inputs_for_common(self) -> tuple[Any, dict[str, Any]]:
        from copy import deepcopy

        ids = torch.randint(3, self.vocab_size, (self.batch_size, self.seq_length))
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if self.config.spec["num_encoder_layers"]:
            # The suite shrinks the vocabulary by 15 tokens, and bounds `input_ids` alone by it.
            source = ids.flip(1).clamp(max=self.vocab_size - 16)
            inputs |= {"encoder_input_ids": source, "encoder_attention_mask": torch.ones_like(ids)}
        return deepcopy(self.config), inputs


def as_family() -> tuple[type, ...]:
    """Our classes, under the tasks that the suite knows a family's classes by."""
    from transformers.models.auto import modeling_auto as auto

    from harness.model.hf import HarnessForCausalLM, HarnessForSequenceClassification, HarnessModel

    auto.MODEL_MAPPING_NAMES["harness"] = "HarnessModel"
    auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES["harness"] = "HarnessForCausalLM"
    auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES["harness"] = "HarnessForSequenceClassification"
    return HarnessModel, HarnessForCausalLM, HarnessForSequenceClassification


RECURRENT = ("linear", "gated_linear", "mamba2")
"""Configurations that keep a state: without weights to show, and without keys."""
ALL_BUT_RECURRENT = tuple(name for name in CONFIGURATIONS if name not in RECURRENT)
OTHER_CACHES = (*RECURRENT, "latent", "paged", "encoder_decoder")
_CACHE = (
    "the suite measures a cache's layers: ours hold a state, one latent vector a token, blocks, or keys of a "
    "source beside the decoder's own"
)
_STATE = "a state cannot take tokens back, and has no keys to compare"
EXPLAINED: dict[str, tuple[tuple[tuple[str, ...], str], ...]] = {
    "test_retain_grad_hidden_states_attentions": (
        (
            ALL_BUT_RECURRENT,
            "weights are shown beside the fused kernel that mixes the values, so that no gradient flows "
            "through what is shown",
        ),
    ),
    **dict.fromkeys(
        (
            "test_past_key_values_format",
            "test_greedy_generate_dict_outputs_use_cache",
            "test_beam_search_generate_dict_outputs_use_cache",
            "test_assisted_decoding_matches_greedy_search_0_random",
            "test_assisted_decoding_matches_greedy_search_1_same",
            "test_assisted_decoding_sample",
        ),
        ((OTHER_CACHES, _CACHE),),
    ),
    "test_generate_continue_from_past_key_values": (
        (RECURRENT, _STATE),
        (("prefix_decoder",), "how long the cached prefix was is for the caller to say"),
    ),
    "test_generate_continue_from_inputs_embeds": (
        (RECURRENT, _STATE),
        (("prefix_decoder",), "how long the cached prefix was is for the caller to say"),
        (("encoder_decoder",), "a decoder without a start token starts from its source's last token"),
    ),
    "test_generate_from_random_inputs_embeds": (
        (("encoder_decoder",), "a decoder without a start token starts from its source's last token"),
    ),
}
"""Tests of the suites that fail -> of which configurations, and why they may."""


def failing(test: str, reason: str) -> Any:
    """A test of the suites that must fail."""

    @pytest.mark.xfail(strict=True, reason=reason)
    def expected(self: Any) -> None:
        getattr(super(type(self), self), test)()

    return expected


def case(name: str) -> type:
    """The suites' tests of one configuration."""

    def set_up(self: Any) -> None:
        self.model_tester = Inputs(name)

    members: dict[str, Any] = {"all_model_classes": as_family(), "setUp": set_up}
    members["has_attentions"] = name not in RECURRENT
    for test, reasons in EXPLAINED.items():
        if hasattr(Modelling, test) or hasattr(Generating, test):
            members.update((test, failing(test, why)) for names, why in reasons if name in names)
    return type(f"Test_{name}", (Modelling, Generating, unittest.TestCase), members)


globals().update({f"Test_{name}": case(name) for name in CONFIGURATIONS})
