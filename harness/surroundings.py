"""What all code of a process shares, and no plugin may change for the others by being imported or built."""

from __future__ import annotations

import contextlib
import locale
import operator
import os
import random
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from harness.errors import PluginError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD)
VARIABLES = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "TMPDIR", "HARNESS_STORE"),
    *("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"),
)
"""Of the environment, what decides results or where they go."""


@dataclass(frozen=True)
class Shared:
    """Something that a process has once."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], Any]
    library: str = ""
    """Where it is a library's: nothing is known of it before that is loaded."""
    usual: Any = None
    """What it is when the library has just been loaded; None where that cannot be known."""
    same: Callable[[Any, Any], bool] = operator.eq
    """Whether it is as it was before."""


def _folder() -> str:
    """The working directory; empty where it was removed."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def _go_to(folder: str) -> None:
    if folder:
        os.chdir(folder)


def _torch() -> Any:
    return sys.modules["torch"]


def _set_variable(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


_WORDS = 624
"""Of a Mersenne Twister's state, which are all replaced once each was drawn."""
_LAPS = 16
"""How often drawing may have replaced them."""


def _drawn(before: Any, after: Any) -> bool:
    """Whether drawing numbers leads from one state of `random` to another, as seeding does not."""
    stream = random.Random()
    stream.setstate(before)
    for _ in range(_LAPS):
        if stream.getstate()[1][:_WORDS] == after[1][:_WORDS]:
            return True
        stream.getrandbits(32 * _WORDS)
    return False


def _numpy_drawn(before: Any, after: Any) -> bool:
    """The same of numpy's, whose default generator is the same."""
    return bool((before[1] == after[1]).all()) or _drawn(
        *((3, (*s[1].tolist(), s[2]), None) for s in (before, after))
    )


def _torch_state() -> tuple[int, Any]:
    """Seed and state of torch's global numbers."""
    return _torch().initial_seed(), _torch().get_rng_state()


def _raised() -> list[Any]:
    """Filters that make errors of warnings."""
    return [entry for entry in warnings.filters if entry[0] == "error"]


def _keep_raised(filters: list[Any]) -> None:
    warnings.filters[:] = [  # type: ignore[index]
        entry for entry in warnings.filters if entry[0] != "error" or entry in filters
    ]


SHARED = (
    Shared("the working directory", _folder, _go_to),
    Shared("the locale", partial(locale.setlocale, locale.LC_ALL), partial(locale.setlocale, locale.LC_ALL)),
    Shared("which warnings are errors", _raised, _keep_raised),
    *(
        Shared(f"sys.{name}", partial(getattr, sys, name), partial(setattr, sys, name), same=operator.is_)
        for name in ("stdin", "stdout", "stderr", "excepthook")
    ),
    *(
        Shared(f"the answer to {one.name}", partial(signal.getsignal, one), partial(signal.signal, one))
        for one in SIGNALS
    ),
    *(
        Shared(f"{name} in the environment", partial(os.environ.get, name), partial(_set_variable, name))
        for name in VARIABLES
    ),
    Shared("the seed of Python's random numbers", random.getstate, random.setstate, same=_drawn),
    Shared(
        "the seed of numpy's random numbers",
        lambda: sys.modules["numpy"].random.get_state(),
        lambda state: sys.modules["numpy"].random.set_state(state),
        library="numpy",
        same=_numpy_drawn,
    ),
    Shared(
        "the seed of torch's random numbers",
        _torch_state,
        lambda was: _torch().set_rng_state(was[1]),
        library="torch",
        same=lambda before, after: before[0] == after[0],
    ),
    Shared(
        "torch's default dtype",
        lambda: str(_torch().get_default_dtype()),
        lambda name: _torch().set_default_dtype(getattr(_torch(), name.rpartition(".")[2])),
        library="torch",
        usual="torch.float32",
    ),
    Shared(
        "the precision of torch's products",
        lambda: _torch().get_float32_matmul_precision(),
        lambda value: _torch().set_float32_matmul_precision(value),
        library="torch",
        usual="highest",
    ),
    Shared(
        "whether torch is deterministic",
        lambda: _torch().are_deterministic_algorithms_enabled(),
        lambda value: _torch().use_deterministic_algorithms(value),
        library="torch",
        usual=False,
    ),
    Shared(
        "whether torch keeps gradients",
        lambda: _torch().is_grad_enabled(),
        lambda value: _torch().set_grad_enabled(value),
        library="torch",
        usual=True,
    ),
    Shared(
        "the number of torch's threads",
        lambda: _torch().get_num_threads(),
        lambda count: _torch().set_num_threads(count),
        library="torch",
    ),
    Shared(
        "torch's default device",
        lambda: str(_torch().get_default_device()),
        lambda name: _torch().set_default_device(None if name == "cpu" else name),
        library="torch",
        usual="cpu",
    ),
    Shared(
        "numpy's answer to faulty numbers",
        lambda: sys.modules["numpy"].geterr(),
        lambda value: sys.modules["numpy"].seterr(**value),
        library="numpy",
        usual={"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"},
    ),
)


@contextlib.contextmanager
def kept(doing: str) -> Iterator[None]:
    """Leave what all share as it is; `doing` says of a plugin when it changed it.

    Raises: PluginError naming what was changed, having set it back
    """
    before = [(one, one.read() if _is_there(one) else one.usual) for one in SHARED]
    changed: list[Shared] = []
    try:
        yield
    finally:
        for one, was in before:
            unknown = one.library and was is None
            if not unknown and _is_there(one) and not one.same(was, one.read()):
                changed.append(one)
                one.write(was)
    if changed:
        names = ", ".join(one.name for one in changed)
        raise PluginError(
            f"it changes {names} {doing}, for all else in the process too; change it where it is used, "
            "and set it back"
        )


def _is_there(one: Shared) -> bool:
    return not one.library or hasattr(sys.modules.get(one.library), "__version__")
