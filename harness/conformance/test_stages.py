"""What every stage must do, whoever ships it; those that make a model of a model are tried on a small one."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from harness.compose import compose
from harness.compose.describe import field_docs
from harness.compose.schema import stage_axes, stage_key
from harness.conformance import _language as language
from harness.conformance import test_methods as of_methods
from harness.method import summary
from harness.registry.known import registry
from harness.stage import Stage, Work
from harness.store import Artifact

TOKENS = torch.arange(8, 40)[None]
"""What models are asked about (1 x 32)."""


class Tried(NamedTuple):
    """What a stage left behind."""

    facts: dict[str, Any]
    logits: torch.Tensor
    weights: dict[str, torch.Tensor]
    input_changed: bool
    cell: Any


def test_its_options_are_frozen_and_say_what_they_mean(stage: type[Stage]) -> None:
    assert vars(stage.Config)["__dataclass_params__"].frozen, (
        "decorate it with @dataclass(frozen=True, kw_only=True)"
    )
    assert issubclass(stage.Config, Stage.Config), "its Config must inherit Stage.Config"
    docs = field_docs(stage.Config)
    silent = [f.name for f in dataclasses.fields(stage.Config) if not docs.get(f.name)]
    assert not silent, f"write a string with meaning and unit under {silent}"
    files = of_methods.undeclared(stage.Config)
    assert not files, f"declare {files} with path_ref (or model_ref), so that content enters the key"


def test_it_says_what_it_is(stage: type[Stage]) -> None:
    assert (stage.__dict__.get("__doc__") or "").strip(), (
        "its docstring starts with one sentence that says what it is"
    )
    assert summary(stage).isascii(), "plain ASCII"


def test_its_hook_stands_last(stage: type[Stage]) -> None:
    of_methods.test_its_hook_stands_last(stage)  # type: ignore[arg-type]


def test_it_imports_only_the_public_surface(stage: type[Stage]) -> None:
    if not stage.__module__.startswith("harness."):
        of_methods.test_it_imports_only_the_public_surface(stage)  # type: ignore[arg-type]


def test_it_imports_heavy_libraries_only_when_used(stage: type[Stage]) -> None:
    of_methods.test_it_imports_heavy_libraries_only_when_used(stage)  # type: ignore[arg-type]


def test_it_stands_where_it_says(stage: type[Stage]) -> None:
    order = list(registry().stages)
    place = order.index(stage.name)
    assert all(order.index(name) < place for name in stage.after if name in order), (
        "a stage of `after` stands behind it"
    )
    assert all(order.index(name) > place for name in stage.before if name in order), (
        "a stage of `before` stands before it"
    )
    made = {earlier.produces for earlier in (registry().stages[name] for name in order[:place])}
    assert set(stage.needs) <= made, f"no stage before it makes {set(stage.needs) - made}"


def test_none_on_its_optional_axes_leaves_it_out(stage: type[Stage]) -> None:
    axes = registry().axes
    optional = [axis for axis in stage_axes(stage.name) if axes[axis].optional and not axes[axis].many]
    if optional:
        cell = compose([f"{axis}=none" for axis in optional])
        assert not stage.active(cell), f"it is active where {' and '.join(optional)} are none"


def test_its_defaults_compose(stage: type[Stage]) -> None:
    config = compose().stage_config(stage.name)
    assert isinstance(config, stage.Config), "the composed options are of another class than Config"
    assert dataclasses.replace(config, threads=None) == stage.Config(), (
        "the composed options are not the Config's defaults"
    )


def test_it_makes_a_model_of_a_model(stage: type[Stage]) -> None:
    """Effects are proved, facts are JSON, the artifact loads and computes, and the input is left alone."""
    if not of_models(stage):
        return
    found = tried(stage)
    json.dumps(found.facts)
    assert found.facts.get("effects"), "facts hold what was changed under `effects` (see harness.prove)"
    assert torch.isfinite(found.logits).all(), "the model it leaves computes no numbers"
    assert not found.input_changed, "it wrote into its input; write into work.out alone"
    given = language.model()
    with torch.no_grad():
        logits = given(input_ids=TOKENS).logits
    as_given = found.weights.keys() == given.state_dict().keys() and same(found, given.state_dict())
    assert not (as_given and torch.equal(found.logits, logits)), (
        "the model it leaves is the one it was given: save the changed one, and prove what changed"
    )


def test_a_model_follows_from_the_seed_alone(stage: type[Stage]) -> None:
    if not of_models(stage):
        return
    first, again, other = tried(stage), tried(stage), tried(stage, seed=1)
    assert same(first, again.weights), "two runs differ; draw from work.stream(Purpose....) alone"
    draws = stage.draws("", stage.narrow("", first.cell.choices_of(stage.name)))
    assert draws or same(first, other.weights), "it says that it draws nothing, and depends on the seed"
    assert not draws or not same(first, other.weights), (
        "it says that it draws, and two seeds leave one model: draw from work.stream(Purpose....), or say in "
        "`draws` that it does not"
    )


def of_models(stage: type[Stage]) -> bool:
    """Whether it reads no more than a model and text, and makes a model; training is tried if it says how."""
    trains = "optimizer" in stage.axes and not stage.trial
    if trains or stage.produces != "model" or set(stage.needs) != {"model"} or "tokenizer" in stage.may_need:
        return False
    assert stage.trial, "say in `trial` with which overrides it can be tried, e.g. ('pruner=magnitude',)"
    return True


def same(found: Tried, weights: Mapping[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, weights[name]) for name, tensor in found.weights.items())


def tried(stage: type[Stage], *, seed: int = 0) -> Tried:
    """The stage on a small Llama and forty documents."""
    from harness.data import documents
    from harness.model.artifact import load_model

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("model", "documents", "out", "checkpoints"):
            (root / name).mkdir()
        language.model().save_pretrained(root / "model")
        language.tokenizer().save_pretrained(root / "model")
        documents.write(root / "documents", language.documents("train"))
        before = contents(root / "model")
        inputs = {kind: artifact(kind, root / kind) for kind in ("model", "documents")}
        cell = compose([*stage.trial, f"model.path={root / 'model'}", "model=pretrained"])
        assert stage.active(cell), f"with its trial {stage.trial} a cell does not have it"
        config = cell.stage_config(stage.name)
        work = Work(
            stage=stage.name,
            maker=stage,
            axes=registry().axes_of(stage.name),
            refers=registry().model_refs,
            part="",
            config=config,
            choices=stage.narrow("", cell.choices_of(stage.name)),
            inputs={kind: inputs[kind] for kind in (*stage.needs, *stage.may_need) if kind in inputs},
            seed=seed,
            device="cpu",
            out=root / "out",
            checkpoints=root / "checkpoints",
            load=lambda key: inputs[key],
            model_path=cell.model_path(),
            spec=cell.spec,
        )
        facts = stage().run(work)
        made = load_model(artifact(stage_key(stage.name), root / "out"), work.load).model
        with torch.no_grad():
            logits = made(input_ids=TOKENS).logits
        weights = {name: tensor.clone() for name, tensor in made.state_dict().items()}
        return Tried(facts, logits, weights, contents(root / "model") != before, cell)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def artifact(key: str, path: Path) -> Artifact:
    return Artifact(key=key, path=path, stage="", kind=key, inputs={}, facts={})
