"""What every test gets: no network, one thread, a store of its own, and the real data where they lie."""

import itertools
import logging
import os

os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    WANDB_MODE="offline",
    TOKENIZERS_PARALLELISM="false",
    OMP_NUM_THREADS="1",
)

from collections.abc import Generator
from pathlib import Path

import pytest
import turns

ROOT = Path(__file__).parents[1]
STORE = Path(os.environ.get("HARNESS_STORE") or ROOT / ".harness").absolute()
"""Where `harness fetch` has put real models, before tests get stores of their own."""
NUMBERS = itertools.count()
"""Of stores of tests without a folder: making one looks at those of all tests before."""


class AtOnce:
    """Says what failed when it fails: a run that is cut off has no summary."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        printer = self.config.pluginmanager.get_plugin("terminalreporter")
        if report.failed and printer is not None:
            when = "" if report.when == "call" else f" ({report.when})"
            printer.ensure_newline()
            printer.write_line(f"FAILED {report.nodeid}{when}", red=True)
            printer.write_line(report.longreprtext)


def pytest_addoption(parser: pytest.Parser) -> None:
    turns.add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    turns.register(config)
    if not hasattr(config, "workerinput"):  # the process that prints
        config.pluginmanager.register(AtOnce(config))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """Hydra, run in a test, gives the root logger a handler that writes to that test's captured streams."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        return (yield)
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


@pytest.fixture(autouse=True)
def own_store(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A store that no other test and no user shares; a folder of its own is made for a test that has one."""
    if "tmp_path" in request.fixturenames:
        store: Path = request.getfixturevalue("tmp_path") / "store"
    else:
        store = tmp_path_factory.getbasetemp() / f"store-{next(NUMBERS)}"
    monkeypatch.setenv("HARNESS_STORE", str(store))
    return store


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data beside the checkout; tests that read them are marked `shared`."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"no real data at {path}")
    return path


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """A real model, which `harness fetch smollm2_135m` brings into the store."""
    path = STORE / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    if not path.is_file():
        pytest.skip(f"no real model at {path}; harness fetch smollm2_135m brings it")
    return path


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Two cores are shared by many tests; more threads only contend."""
    import torch

    torch.set_num_threads(1)
