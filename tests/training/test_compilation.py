"""Compiled training: the losses of a plain one, graphs that blocks share, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

import harness.model
from harness.axes import MODEL_AXES
from harness.compose import compose, publish
from harness.conformance.tiny import TinySource, methods, run
from harness.errors import ConfigError
from harness.registry.known import registry


def ours(**options: Any) -> nn.Module:
    publish()
    cell = compose(["model.dim=32", "model.num_layers=4", "model.head_dim=8", "model.ffn_dim=48"])
    spec = cell.spec()
    assert spec is not None
    return harness.model.build(spec, {axis: cell.choice(axis) for axis in MODEL_AXES}, seed=0)  # type: ignore[misc]


def llama() -> nn.Module:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4}
    made: nn.Module = LlamaForCausalLM(LlamaConfig(vocab_size=64, **shape))
    return made


class Documents(TinySource):
    """Two documents of a length of its own in every row."""

    def next(self, size: int) -> dict[str, torch.Tensor]:
        batch = super().next(size)
        cuts_B1 = 1 + torch.arange(self.position, self.position + size)[:, None] % (self.length - 1)
        return {**batch, "document_ids": (torch.arange(self.length) >= cuts_B1).long()}


@pytest.mark.slow
@pytest.mark.parametrize(("build", "source"), [(ours, TinySource), (ours, Documents), (llama, TinySource)])
def test_compiled_blocks_train_as_plain_ones_do(build: Any, source: Any, tmp_path: Path) -> None:
    clip = registry().get("stabilizer", "clip_norm")
    found = []
    for compiles in (False, True):
        model, facts = run(
            tmp_path / str(compiles),
            build(),
            source=source(),
            compile=compiles,
            log_every=1,
            methods=methods(stabilizers=(clip(),)),
        )
        found.append((facts, model.state_dict()))
    (plain, weights), (compiled, compiled_weights) = found
    for (_, loss), (_, exact) in zip(compiled["loss_curve"], plain["loss_curve"], strict=True):
        assert loss == pytest.approx(exact, rel=1e-4)
    assert compiled_weights.keys() == weights.keys()
    assert "compile_seconds" not in plain
    assert compiled["compile_seconds"] > 0
    # The first block, which makes the cosines, has a graph of its own, and each has one backward.
    assert compiled["compiled_graphs"] <= 4
    assert all(getattr(part, "_compiled_call_impl", None) is None for part in model.modules())


def test_no_compiler_is_said_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config, cpp_builder

    monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    cpp_builder.cpp_compiler_search.cache_clear()
    with pytest.raises(ConfigError, match=r"no C\+\+ compiler; install g\+\+"):
        run(tmp_path, llama(), compile=True)
    cpp_builder.cpp_compiler_search.cache_clear()


def test_a_model_without_blocks_and_several_processes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="TinyModel names no repeated blocks"):
        run(tmp_path, compile=True)
