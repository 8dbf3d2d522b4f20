"""Grids of processes: four processes, pipelines of both orders, resume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from harness.compose import compose
from harness.conformance import test_parallelism as suite
from harness.conformance.tiny import TinySource, methods, run
from harness.errors import DivergedError, IncompatibleError
from harness.plan.problems import problems
from harness.registry.known import registry


def known(axis: str, name: str, **options: Any) -> Any:
    method: Any = registry().get(axis, name)
    return method(method.Config(**options))


def build(name: str, **options: Any) -> Any:
    if "schedule" in options:
        method: Any = registry().get("parallelism", name)
        options["schedule"] = type(method.Config().schedule)[options["schedule"]]
    return known("parallelism", name, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ddp", {"num_processes": 4}),
        ("fsdp", {"num_processes": 4}),
        ("pipeline", {"num_processes": 2, "schedule": "one_f_one_b"}),
        ("mesh", {"num_processes": 4, "tensor": 2}),
        ("mesh", {"num_processes": 4, "pipeline": 2}),
        ("mesh", {"num_processes": 4, "pipeline": 2, "tensor": 2}),
        ("mesh", {"num_processes": 8, "pipeline": 2, "tensor": 2}),
    ],
)
def test_more_processes_equal_one(name: str, options: dict[str, Any]) -> None:
    expected, facts = suite.trained(registry().get("parallelism", "single")())  # type: ignore[arg-type]
    model, found = suite.trained(build(name, **options))
    for (_, mine), (_, theirs) in zip(found["loss_curve"], facts["loss_curve"], strict=True):
        assert mine == pytest.approx(theirs, abs=1e-6)
    for p, q in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-8, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tensor", "pipeline"])
def test_a_resumed_grid_ends_alike(tmp_path: Path, name: str) -> None:
    ends = []
    for folder, amounts in (("whole", [8]), ("resumed", [5, 8])):
        model = suite.transformer()
        for amount in amounts:
            model = suite.transformer()
            constant: Any = registry().get("schedule", "constant")
            flat = constant(constant.Config(warmup_share=0.0))
            chosen = methods(parallelism=build(name, num_processes=2), schedule=flat)
            run(
                tmp_path / folder,
                model,
                source=TinySource(),
                methods=chosen,
                steps=amount,
                checkpoint_every=3,
                log_every=1,
            )
        ends.append(model.state_dict())
    for key, value in ends[0].items():
        assert torch.equal(value, ends[1][key]), key


def ends(tmp_path: Path, model: Callable[[], nn.Module], **chosen: Any) -> list[dict[str, Any]]:
    """Weights after two steps by one process and by a pipeline of two."""
    found = []
    for parallelism in (build("single"), build("pipeline", num_processes=2, num_micro_batches=2)):
        trained = model()
        with_methods = methods(parallelism=parallelism, **chosen)
        run(tmp_path / parallelism.name, trained, methods=with_methods, steps=2, spike_factor=None)
        found.append({name: p.detach().clone() for name, p in trained.named_parameters()})
    return found


def test_a_pipeline_trains_adapters_and_adds_terms_to_its_loss(tmp_path: Path) -> None:
    def adapted() -> nn.Module:
        torch.manual_seed(0)
        return known("peft", "lora").apply(suite.transformer())  # type: ignore[no-any-return]

    before = {name: p.detach() for name, p in adapted().named_parameters()}
    one, piped = ends(tmp_path, adapted, stabilizers=(known("stabilizer", "z_loss", weight=0.1),))
    torch.testing.assert_close(piped, one, rtol=0, atol=1e-6)  # adapters, and what z-loss reads, are in fp32
    assert {name for name, p in one.items() if not torch.equal(p, before[name])} == {
        name for name in one if "lora_B" in name or "lora_A" in name
    }


@pytest.mark.parametrize("name", ["single", "pipeline"])
def test_steps_that_overflow_are_skipped_by_all_processes(tmp_path: Path, name: str) -> None:
    """A loss scaled by so much overflows in half precision, and not in single precision."""
    half = known("precision", "fp16", initial_scale=2.0**25)
    options = {"num_processes": 2, "num_micro_batches": 2} if name == "pipeline" else {}
    chosen: dict[str, Any] = {"spike_factor": None, "log_every": 1}
    chosen["methods"] = methods(parallelism=build(name, **options), precision=half)
    with pytest.raises(DivergedError, match="in each of its 2 steps"):
        run(tmp_path / "short", suite.transformer().float(), steps=2, **chosen)
    _, facts = run(tmp_path / "long", suite.transformer().float(), steps=16, **chosen)
    assert 2 < facts["skipped_steps"] < 14
    losses = [loss for _, loss in facts["loss_curve"]]
    assert losses[1] == pytest.approx(losses[0], abs=0.5), "no weight moved"
    assert losses[-1] < losses[0], "and then they did"


def test_layers_with_other_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(IncompatibleError, match="no layers named"):
        run(tmp_path, methods=methods(parallelism=build("tensor", num_processes=2)))


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["parallelism=pipeline", "position=rope"], ""),
        (["parallelism=pipeline", "position=relative_t5"], "processes of a pipeline do not share"),
        (["parallelism=pipeline", "position=learned"], "processes of a pipeline do not share"),
        (["parallelism=tensor", "position=learned"], ""),
        (["parallelism=tensor", "position=alibi"], "do not follow split heads"),
        (["parallelism=tensor", "position=rope", "stabilizer=[qk_norm]"], "drop that stabilizer"),
    ],
)
def test_the_plan_refuses_what_cannot_be_split(overrides: list[str], reason: str) -> None:
    cell = compose(["model.tie_embeddings=false", "parallelism.num_processes=2", *overrides])
    found = problems(cell)
    assert len(found) == bool(reason)
    assert all(reason in problem.message for problem in found)
