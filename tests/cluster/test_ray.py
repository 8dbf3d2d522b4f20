"""A real Ray cluster on this machine, several workers as separate processes; killing one loses no stage."""

from __future__ import annotations

import importlib.util
import os
import signal

import pytest

from harness.store import Store

from .conftest import Sweep, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="no Ray here: pip install 'harness-lm[ray]'"
    ),
]
INIT = "+hydra.launcher.ray.init"
RAY = ("hydra/launcher=ray", f"{INIT}.num_cpus=3", f"{INIT}.include_dashboard=false")


def test_workers_of_a_ray_cluster_share_a_sweep_and_one_may_be_killed(sweep: Sweep) -> None:
    sweep.cells, sweep.seconds = 12, 3.0
    process = sweep.start(*RAY, "hydra.sweeper.workers=3")
    store = Store(sweep.root)

    def holders() -> set[int]:
        found = [store.claims.holder(key) for key in store.claims.names() if "." not in key]
        return {holder["pid"] for holder in found if holder}

    wait_for(lambda: len(holders()) >= 2 or process.poll() is not None, what="two workers at once")
    assert process.poll() is None, sweep.said()
    victim = min(holders())
    assert victim != process.pid, "the workers are processes of their own"
    os.kill(victim, signal.SIGKILL)
    assert process.wait(timeout=300) == 0, sweep.said()
    sweep.check(lost=1)
