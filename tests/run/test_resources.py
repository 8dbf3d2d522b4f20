"""What a worker deals out: cores, GPUs and memory, and what launchers are asked for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from harness.axes.parallelism import Parallelism
from harness.method import Choice
from harness.plan.need import Need
from harness.run import launch, machine
from harness.run.resources import Options, Resources, Share

GIB = 2**30


def node(processes: int = 1, device: str = "cpu", threads: int = 1) -> Any:
    """A stage as far as its resources go."""
    config = Parallelism.Config(num_processes=processes)
    choices = {"parallelism": Choice(axis="parallelism", method=Parallelism, config=config)}
    return SimpleNamespace(choices=choices, device=device, threads=threads)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A machine with 8 cores, 4 GPUs, and memory that the test may take away."""
    state = {"free": 60 * GIB}
    monkeypatch.setattr(machine, "cores", lambda: 8)
    monkeypatch.setattr(machine, "memory", lambda: 64 * GIB)
    monkeypatch.setattr(machine, "gpus", lambda: (0, 1, 2, 3))
    monkeypatch.setattr(machine, "available_memory", lambda: state["free"])
    return state


def deal(resources: Resources, *needs: Need) -> list[Share]:
    """Shares of stages that start one after the other, as far as there is room."""
    given: list[Share] = []
    for need in needs:
        share = resources.share(need, running=given)
        if share is not None:
            given.append(share)
    return given


def test_stages_run_together_as_far_as_their_memory_fits(server: dict[str, int]) -> None:
    resources = Resources(Options(), [node()])
    first = resources.share(Need(), running=[], memory=100 * GIB)
    assert first is not None, "alone, a stage always starts"
    assert resources.share(Need(), running=[first], memory=GIB) is None
    half = resources.share(Need(), running=[], memory=32 * GIB)
    assert half is not None
    assert resources.share(Need(), running=[half], memory=32 * GIB) is None
    server["free"] = 28 * GIB  # the first has taken its memory by now
    assert resources.share(Need(), running=[half], memory=27 * GIB) is not None
    assert resources.share(Need(), running=[half]) is not None, "nothing is known of it"


def test_a_stated_budget_bounds_what_runs_together_and_never_what_runs_alone(server: dict[str, int]) -> None:
    resources = Resources(Options(total_memory=8 * GIB), [node()])
    huge = resources.share(Need(), running=[], memory=9 * GIB)
    assert huge is not None
    assert resources.share(Need(), running=[huge], memory=GIB) is None
    half = resources.share(Need(), running=[], memory=4 * GIB)
    assert half is not None
    assert resources.share(Need(), running=[half], memory=4 * GIB) is not None
    assert resources.share(Need(), running=[half], memory=5 * GIB) is None


def test_stages_spread_over_the_gpus_and_no_more_run_than_there_are(server: dict[str, int]) -> None:
    need = Need.of(node(device="cuda"))
    given = deal(Resources(Options(), [node(device="cuda")]), *[need] * 6)
    assert [share.device for share in given] == ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]
    crowded = deal(Resources(Options(workers=8), [node(device="cuda")]), *[need] * 9)
    assert [share.gpus[0] for share in crowded] == [0, 1, 2, 3, 0, 1, 2, 3]


def test_a_stage_of_several_processes_gets_a_gpu_for_each_or_waits(server: dict[str, int]) -> None:
    one, three = Need.of(node(device="cuda")), Need.of(node(3, device="cuda"))
    resources = Resources(Options(), [node(device="cuda")])
    given = deal(resources, one, three, three)
    assert [share.gpus for share in given] == [(0,), (1, 2, 3)]
    assert given[1].device == "cuda"
    assert deal(resources, three, one, one) == [
        Share(threads=3, gpus=(0, 1, 2)),
        Share(threads=1, gpus=(3,)),
    ]


def test_threads_follow_from_the_stage_and_fill_the_cores(server: dict[str, int]) -> None:
    one, three = Need.of(node()), Need.of(node(threads=3))
    for first in ([], [one] * 5):
        given = deal(Resources(Options(), [node()]), *first, three)
        assert given[-1].threads == 3, "the same beside others and alone"
    assert len(deal(Resources(Options(), [node()]), *[one] * 9)) == 8
    assert len(deal(Resources(Options(), [node()]), *[three] * 4)) == 2
    assert len(deal(Resources(Options(workers=3), [node()]), *[one] * 9)) == 3
    assert Need.of(node(4, threads=2)).threads == 4, "processes are the parallelism"
    (alone,) = deal(Resources(Options(), [node()]), Need.of(node(threads=64)))
    assert alone.threads == 64, "more than there are cores: still as many"


def test_processes_count_as_cores(server: dict[str, int]) -> None:
    resources = Resources(Options(), [node()])
    given = deal(resources, Need.of(node(6)), Need.of(node(4)), Need.of(node()), Need.of(node()))
    assert [share.threads for share in given] == [6, 1, 1]


def test_what_is_larger_than_the_machine_runs_alone_rather_than_never(server: dict[str, int]) -> None:
    resources = Resources(Options(), [node()])
    huge = Need.of(node(99))
    assert deal(resources, huge)
    assert not resources.share(huge, running=[Share(threads=1)])


def test_nothing_more_starts_while_memory_is_short(server: dict[str, int]) -> None:
    resources = Resources(Options(), [node()])
    server["free"] = 6 * GIB
    assert len(deal(resources, Need(), Need())) == 1
    server["free"] = 7 * GIB
    assert len(deal(resources, Need(), Need())) == 2


def test_a_process_is_shown_only_its_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert machine.visible_gpus((1, 3)) == "1,3"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,GPU-ab,7")
    assert machine.visible_gpus((1, 2)) == "5,GPU-ab"


@pytest.mark.parametrize(
    ("launcher", "asked"),
    [
        ({"cpus_per_task": None, "gpus_per_node": None}, {"cpus_per_task": 2, "gpus_per_node": 2}),
        ({"cpus_per_task": 8, "gpus_per_node": 4}, {"cpus_per_task": 8, "gpus_per_node": 4}),
        (
            {"cpus_per_task": None, "gpus_per_node": None, "gres": "gpu:a100:2"},
            {"cpus_per_task": 2, "gpus_per_node": None, "gres": "gpu:a100:2"},
        ),
        ({"ray": {"remote": {}}}, {"ray": {"remote": {"num_cpus": 2, "num_gpus": 2}}}),
        ({"ray": {"remote": {"num_gpus": 1}}}, {"ray": {"remote": {"num_cpus": 2, "num_gpus": 1}}}),
    ],
)
def test_launchers_are_asked_for_a_class_unless_the_user_asked(
    launcher: dict[str, Any], asked: dict[str, Any]
) -> None:
    config = OmegaConf.create(launcher)
    launch._ask_for(Need(processes=2, gpus=2, threads=2), config)
    assert OmegaConf.to_container(config) == asked


def test_a_stage_of_several_nodes_is_a_class_of_its_own() -> None:
    two = Need(nodes=2, processes=3, threads=3)
    assert not two.fits(Need(processes=8, threads=8))
    assert Need(processes=2, threads=2).fits(two)
    config = OmegaConf.create({"cpus_per_task": None, "gpus_per_node": None, "nodes": 1, "tasks_per_node": 1})
    launch._ask_for(two, config)
    assert (config.nodes, config.tasks_per_node, config.cpus_per_task) == (2, 1, 3)
