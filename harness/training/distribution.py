"""Several processes for one run: started by torch's elastic launcher, ended with the parent.

The parent has built model and data; its children are forks of it, so nothing needs to be pickled. They
train; the parent takes over the final weights. On several nodes each has such a parent: they meet, train as
one group, and each takes over the weights. A process that torchrun started joins its group instead.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from harness import errors
from harness.errors import ConfigError, HarnessError, IncompatibleError, LostError, StoreFullError
from harness.store.files import full_text, has_no_room, is_disk_full
from harness.training.meeting import JOIN_SECONDS, Meeting

OnStep = Callable[[int, dict[str, float]], None]
Main = Callable[[str, OnStep], "tuple[dict[str, Any], dict[str, Any]]"]
"""(device, on_step) -> (facts, full state on rank 0): what every process runs."""

PR_SET_PDEATHSIG = 1
KNOWN: dict[str, type[Exception]] = {
    **{
        name: cls
        for name, cls in vars(errors).items()
        if isinstance(cls, type) and issubclass(cls, HarnessError)
    },
    "OutOfMemoryError": torch.OutOfMemoryError,
    "MemoryError": MemoryError,
}
"""Exceptions that one process tells another of by name."""
HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def inside() -> bool:
    """Whether this process is one of several that train together."""
    return dist.is_initialized() or int(os.environ.get("WORLD_SIZE", "1")) > 1


def join(device: str) -> str:
    """Enter the process group that the environment names; returns this process's device."""
    kind = torch.device(device).type
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if kind == "cuda":
        device = f"cuda:{local}"
        torch.cuda.set_device(local)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    return device


def launch(
    main: Main, *, num_processes: int, device: str, on_step: OnStep, meeting: Meeting | None = None
) -> tuple[dict[str, Any], Any]:
    """Run `main` in forked processes, on every node of a meeting; returns rank 0's facts and final state.

    Raises: what a process raised, first of all its HarnessError; LostError where one of them, or a node,
    went away; ConfigError for too few devices
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    if torch.device(device).type == "cuda":
        if torch.cuda.is_initialized():
            raise IncompatibleError(
                "several CUDA processes cannot be forked from one that has used CUDA; start the stage in a "
                "process of its own, or with torchrun"
            )
        if num_processes > torch.cuda.device_count():
            raise ConfigError(
                f"parallelism.num_processes={num_processes} exceeds the "
                f"{torch.cuda.device_count()} CUDA devices here"
            )
    with _place(meeting, num_processes) as (config, folder):
        events = Events(on_step)
        handlers = {number: signal.getsignal(number) for number in HANDLED}
        gc.freeze()  # what the parent left behind is its own to collect: in a fork its threads are gone
        try:
            elastic_launch(config, _process)(main, device, folder, os.getpid(), events.writer)
        except ChildFailedError as error:
            raise _first_error(folder) or _speechless(error, folder) from error
        except dist.DistError as error:
            raise LostError(f"not all nodes came to train, or stayed: {error}") from error
        finally:
            gc.unfreeze()
            events.close()
            # The launcher leaves its own behind, which would turn a later signal into an exception.
            for number, handler in handlers.items():
                if handler is not None and threading.current_thread() is threading.main_thread():
                    signal.signal(number, handler)
        facts, state = torch.load(folder / "result.pt", map_location="cpu", weights_only=True)
        return facts, state


@contextmanager
def _place(meeting: Meeting | None, num_processes: int) -> Iterator[tuple[Any, Path]]:
    """How to launch, and the folder that all processes write into.

    Nodes meet in a static rendezvous: the dynamic one gives rank 0, which reports, to whichever it likes.
    """
    from torch.distributed.launcher.api import LaunchConfig

    with tempfile.TemporaryDirectory(prefix="harness-processes-") as own:
        endpoint, folder = ("127.0.0.1:0", Path(own)) if meeting is None else meeting.next()
        node = {} if meeting is None else {"rank": meeting.node, "timeout": int(JOIN_SECONDS)}
        num_nodes = 1 if meeting is None else meeting.num_nodes
        yield (
            LaunchConfig(
                min_nodes=num_nodes,
                max_nodes=num_nodes,
                nproc_per_node=num_processes,
                run_id=f"harness-{os.getpid()}" if meeting is None else str(folder),
                rdzv_backend="c10d" if meeting is None else "static",
                rdzv_endpoint=endpoint,
                rdzv_configs=node,
                max_restarts=0,
                monitor_interval=0.05,
                start_method="fork",
            ),
            folder,
        )


def _process(main: Main, device: str, folder: Path, parent: int, writer: int) -> None:
    """One process's life."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    # One that the launcher ends because another has failed is no failure of its own.
    for number in HANDLED:
        signal.signal(number, signal.SIG_DFL)
    # Threads of OpenMP do not survive a fork; on a CPU the processes are the parallelism.
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    try:
        device = join(device)
        write = events_to(writer) if rank == 0 else _silent
        result = main(device, write)
        if rank == 0:
            torch.save(result, folder / "result.pt")
        dist.barrier()
        dist.destroy_process_group()
    except Exception as error:
        with contextlib.suppress(OSError):  # of a full disk the launcher learns in another way
            (folder / f"error-{rank}.json").write_text(json.dumps(described(error)), encoding="utf-8")
        raise


def _silent(step: int, facts: dict[str, float]) -> None:
    return None


def described(error: Exception) -> dict[str, Any]:
    """An exception as JSON, for another process, which makes it again: nodes meet in a shared folder."""
    if is_disk_full(error):  # its cause, which may say so alone, stays in the process
        error = StoreFullError(full_text(error))
    reduced = error.__reduce__()
    rebuilt, arguments = reduced[:2] if isinstance(reduced, tuple) else (None, ())
    name = getattr(rebuilt, "__name__", "")
    if KNOWN.get(name) is not rebuilt:  # another's own class: as the nearest one that is known everywhere
        name = next((c.__name__ for c in type(error).__mro__ if KNOWN.get(c.__name__) is c), "RuntimeError")
        arguments = (str(error) if name != "RuntimeError" else f"{type(error).__name__}: {error}",)
    return {
        "type": name,
        "arguments": [value if isinstance(value, str | int | float) else str(value) for value in arguments],
        "connection": isinstance(error, dist.DistError) or "/gloo/" in str(error),
    }


def remade(found: Mapping[str, Any]) -> Exception:
    """The exception that `described` told of; of a class known here, or a RuntimeError."""
    return KNOWN.get(found["type"], RuntimeError)(*found["arguments"])


def _first_error(folder: Path) -> Exception | None:
    """The error to show: one raised on purpose, else the one written first.

    A broken connection is how the others see one that went away without a word; gloo raises plain
    RuntimeErrors that name its source file.
    """
    files = sorted(folder.glob("error-*.json"), key=lambda path: path.stat().st_mtime_ns)
    found = list(_readable(files))
    raised = [remade(one) for one in found]
    meant = [error for error in raised if isinstance(error, HarnessError | torch.OutOfMemoryError)]
    if not meant and raised and found[0]["connection"]:
        return LostError(f"a process that trained along went away: {raised[0]}")
    return (meant or raised or [None])[0]  # type: ignore[list-item]


def _readable(files: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """What processes told, without what a full disk has cut."""
    for path in files:
        with contextlib.suppress(ValueError):
            yield json.loads(path.read_text(encoding="utf-8"))


def _speechless(error: Any, folder: Path) -> Exception:
    """What the end of processes that left no word means: a full disk, a SIGKILL, or a fault of theirs."""
    if has_no_room(folder):
        return StoreFullError(f"The disk under {folder} is full; free space and run the same command again")
    if any(failure.exitcode == -signal.SIGKILL for failure in error.failures.values()):
        return LostError("a process that trained along was killed")
    return error  # type: ignore[no-any-return]


class Events:
    """Carries logging steps from rank 0 to the parent, where trackers and the progress bar live."""

    def __init__(self, on_step: OnStep) -> None:
        self.reader, self.writer = os.pipe()
        self.thread = threading.Thread(target=self._read, args=(on_step,), daemon=True)
        self.thread.start()

    def _read(self, on_step: OnStep) -> None:
        with os.fdopen(self.reader) as lines:
            for line in lines:
                step, facts = json.loads(line)
                on_step(step, facts)

    def close(self) -> None:
        """Wait for what was written."""
        os.close(self.writer)
        self.thread.join(timeout=10)


def events_to(writer: int) -> OnStep:
    """An on_step that writes into the pipe."""

    def write(step: int, facts: dict[str, float]) -> None:
        os.write(writer, (json.dumps([step, facts]) + "\n").encode())

    return write
