"""The stages pretrain and extend on real token files."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.compose import compose, publish
from harness.errors import EffectError
from harness.method import Choice
from harness.registry.known import registry
from harness.stage import Work

SIZE = (
    "tokenizer=byte",
    "model.dim=32",
    "model.num_layers=2",
    "model.num_heads=2",
    "model.head_dim=16",
    "model.ffn_dim=48",
    "model.max_length=64",
)
SHORT = ("pretrain.sequence_length=64", "pretrain.batch_size=4", "pretrain.log_every=5")


class Chain:
    """Runs stages in a folder, each once for its options."""

    def __init__(self, root: Path) -> None:
        self.root, self.artifacts = root, {}

    def run(self, stage: str, *overrides: str, seed: int = 0) -> dict[str, Any]:
        publish()
        cell = compose([*SIZE, *SHORT, *overrides])
        kind = registry().stage(stage)
        choices: dict[str, Choice | tuple[Choice, ...]] = {}
        for axis in kind.axes:
            many = registry().axes[axis].many
            chosen = cell.choices(axis, stage=stage) if many else cell.choice(axis, stage=stage)
            if chosen is not None:
                choices[axis] = chosen
        count = len(list(self.root.glob("*")))
        out = self.root / f"{count}-{stage}"
        out.mkdir(parents=True)
        work = Work(
            refers=registry().model_refs,
            stage=stage,
            maker=kind,
            part="",
            config=cell.stage_config(stage),
            choices=kind.narrow("", choices),
            inputs={name: self.artifacts[name] for name in self.artifacts},
            seed=seed,
            device="cpu",
            out=out,
            checkpoints=self.root / f"{count}-checkpoints",
            load=lambda key: next(a for a in self.artifacts.values() if a.key == key),  # type: ignore[return-value]
            model_path=cell.model_path(),
            spec=cell.spec,
        )
        facts = kind().run(work)
        self.artifacts[kind.produces] = SimpleNamespace(key=f"{self.root.parent.name}-{count}", path=out)  # type: ignore[assignment]
        if kind.produces == "model":
            self.artifacts[f"model{count}"] = self.artifacts["model"]
        return facts


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("data")
    (root / "in").mkdir()
    text = "\n".join(f"line {i}: the cat sat on the mat and saw {i * i} mice" for i in range(400))
    for i in range(30):
        (root / "in" / f"{i}.txt").write_text(text[i * 60 : i * 60 + 4000])
    chain = Chain(root / "stages")
    for stage in ("corpus", "tokenizer", "tokens"):
        chain.run(stage, "corpus=text", f"corpus.path={root / 'in'}")
    return chain.artifacts


@pytest.fixture
def chain(tmp_path: Path, data: dict[str, Any]) -> Chain:
    made = Chain(tmp_path)
    made.artifacts.update(data)
    return made


def steps(count: int, stage: str = "pretrain") -> tuple[str, ...]:
    return (f"{stage}.budget.unit=steps", f"{stage}.budget.amount={count}")


def test_pretraining_learns_and_is_the_same_twice(chain: Chain) -> None:
    first = chain.run("pretrain", *steps(16))
    weights = chain.artifacts["model"].path / "model.safetensors"
    again = chain.run("pretrain", *steps(16))
    assert first["final_loss"] < 0.9 * first["first_loss"]
    assert first["loss_curve"] == again["loss_curve"]
    assert weights.read_bytes() == (chain.artifacts["model"].path / "model.safetensors").read_bytes()
    assert first["bytes"] == pytest.approx(first["tokens"], rel=0.05)
    json.dumps(first)


def test_another_seed_is_another_model(chain: Chain) -> None:
    assert (
        chain.run("pretrain", *steps(3))["loss_curve"]
        != chain.run("pretrain", *steps(3), seed=1)["loss_curve"]
    )


@pytest.mark.parametrize(
    ("objective", "architecture"),
    [
        ("language_modeling", "encoder_decoder"),
        ("prefix_language_modeling", "prefix_decoder"),
        ("denoising", "encoder_decoder"),
        ("mixture_of_denoisers", "prefix_decoder"),
        *(
            pytest.param(objective, architecture, marks=pytest.mark.slow)
            for objective, architecture in (
                ("language_modeling", "prefix_decoder"),
                ("prefix_language_modeling", "causal_decoder"),
                ("prefix_language_modeling", "encoder_decoder"),
                ("denoising", "causal_decoder"),
                ("denoising", "prefix_decoder"),
                ("mixture_of_denoisers", "causal_decoder"),
                ("mixture_of_denoisers", "encoder_decoder"),
            )
        ),
    ],
)
def test_every_objective_trains_every_architecture(chain: Chain, objective: str, architecture: str) -> None:
    encoder = ("model.num_encoder_layers=1",) if architecture == "encoder_decoder" else ()
    facts = chain.run(
        "pretrain", f"objective={objective}", f"architecture={architecture}", *encoder, *steps(12)
    )
    assert facts["final_loss"] < facts["first_loss"]


def test_stabilizers_reach_the_stage(chain: Chain) -> None:
    facts = chain.run(
        "pretrain",
        "stabilizer=[clip_norm,z_loss,qk_norm,embedding_gradient_shrink,spike_rollback]",
        *steps(6),
        "pretrain.checkpoint_every=3",
    )
    assert facts["spec"]["qk_norm"]
    assert facts["spec"]["embedding_gradient_scale"] == 0.1
    assert facts["rollbacks"] == []


def test_extension_without_training_is_replayed_on_load(chain: Chain) -> None:
    from harness.model.artifact import load_model

    chain.run("pretrain", *steps(4))
    facts = chain.run("extend", "context=ntk_aware", "context.factor=4")
    artifact = chain.artifacts["model"]
    assert facts["length"] == 256
    assert facts["effects"]["context=ntk_aware"]["inverse_frequencies"]
    assert not (artifact.path / "model.safetensors").exists()
    loaded = load_model(artifact, lambda key: next(a for a in chain.artifacts.values() if a.key == key))
    assert loaded.model.config.max_position_embeddings == 256  # type: ignore[union-attr]
    assert [entry["method"] for entry in loaded.applied] == ["ntk_aware"]
    with torch.no_grad():
        assert loaded.model(torch.zeros(1, 200, dtype=torch.long)).logits.isfinite().all()


@pytest.mark.parametrize("context", ["position_interpolation", "yarn"])
def test_extension_trains_on_long_windows(chain: Chain, context: str) -> None:
    chain.run("pretrain", *steps(2))
    facts = chain.run("extend", f"context={context}", *steps(4, "extend"), "extend.batch_size=2")
    assert facts["sequence_length"] == 128
    assert facts["steps"] == 4
    assert (chain.artifacts["model"].path / "model.safetensors").exists()


def test_direct_finetune_goes_through_its_lengths(chain: Chain) -> None:
    chain.run("pretrain", *steps(2))
    facts = chain.run(
        "extend",
        "context=direct_finetune",
        "context.stages=[2]",
        "context.factor=4",
        *steps(4, "extend"),
        "extend.batch_size=2",
    )
    assert facts["lengths"] == [128, 256]
    assert [part["steps"] for part in facts["parts"]] == [2, 2]


def test_a_context_method_that_changes_nothing_is_an_error(chain: Chain) -> None:
    chain.run("pretrain", *steps(2))
    with pytest.raises(EffectError, match="context=position_interpolation was asked for and changed nothing"):
        chain.run("extend", "context=position_interpolation", "context.factor=1", "extend.train=false")
