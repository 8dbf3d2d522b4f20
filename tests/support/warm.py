"""Python programs in forks of one process that has loaded what the command line loads: seconds less a start.

The process has asked nothing of the registry and holds no plugin, so that a fork finds what its own paths
and environment say, as a fresh process does. For tests of what a process answers, not of how it starts.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

LOADED = (
    *("torch", "hydra", "dill", "rich.table", "unittest.mock", "_pytest.assertion.rewrite"),
    *(
        "harness.cli",
        "harness.axes",
        "harness.compose.index_child",
        "harness.plan.make",
        "harness.run.launch",
    ),
)
"""Of libraries what any command needs, of ours what holds no state. What reads the environment when it is
loaded (transformers) is not among them: a sweep forks its stages where none of that is there."""
PLUGINS = ("harness_plugins", "harness.stages", "hydra_plugins")
"""Packages that a fork must load by itself."""


def run(
    words: Sequence[str], *, cwd: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """What `python WORDS` would do and print; `-m MODULE ...` and `-c CODE ...` are understood."""
    with tempfile.TemporaryDirectory() as folder:
        stdout, stderr = (Path(folder) / name for name in ("stdout", "stderr"))
        process = start(words, cwd=cwd, environment=environment, stdout=stdout, stderr=stderr)
        code = process.wait()
        return subprocess.CompletedProcess(
            [sys.executable, *words], code, stdout.read_text(), stderr.read_text()
        )


def start(
    words: Sequence[str], *, cwd: Path, environment: Mapping[str, str], stdout: Path, stderr: Path
) -> Process:
    """Start `python WORDS` in a session of its own, and go on; it prints into files."""
    files = [str(stdout), str(stderr)]
    pid = _asked(words=list(words), cwd=str(cwd), environment=dict(environment), files=files)
    assert pid is not None
    return Process(pid)


@dataclass
class Process:
    """A program that was started, with the words of subprocess.Popen."""

    pid: int
    returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, if it has ended."""
        if self.returncode is None:
            self.returncode = _asked(ended=self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and return the exit code.

        Raises: subprocess.TimeoutExpired
        """
        if timeout is None and self.returncode is None:
            self.returncode = _asked(ends=self.pid)
        until = time.monotonic() + (timeout or 0)
        while self.poll() is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired([str(self.pid)], timeout or 0)
            time.sleep(0.02)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


def _asked(**request: Any) -> int | None:
    """What the server answers."""
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps(request) + "\n")
    server.stdin.flush()
    answer: int | None = json.loads(server.stdout.readline())
    return answer


@functools.cache
def _server() -> subprocess.Popen[str]:
    """The process to fork, started once."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.Popen(
        [sys.executable, __file__],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    atexit.register(_end, process)
    return process


def _end(process: subprocess.Popen[str]) -> None:
    process.communicate()


def serve() -> None:
    """Fork for every line that asks for a program, and answer those that ask whether it has ended."""
    base, root = sys.path[1:], Path(__file__).parents[2]  # the first is this file's folder
    sys.path[1:1] = [str(root), str(root / "plugins")]
    for name in LOADED:
        importlib.import_module(name)
    assert is_fresh(), "what a fork must load by itself is loaded"
    gc.collect()
    gc.freeze()
    while line := sys.stdin.readline():
        asked = json.loads(line)
        if "words" in asked:
            answer: int | None = os.fork()
            if answer == 0:
                with _leaving():
                    become(asked, base)
        else:
            number = asked.get("ends") or asked["ended"]
            pid, status = os.waitpid(number, 0 if "ends" in asked else os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        print(json.dumps(answer), flush=True)


def is_fresh() -> bool:
    """Whether this process is as one that has just loaded our modules: one thread, and no plugin known."""
    from harness.registry.known import registry

    return (
        len(os.listdir("/proc/self/task")) == 1
        and not registry.cache_info().currsize
        and not any(name.startswith(PLUGINS) for name in sys.modules)
    )


def become(asked: Mapping[str, Any], base: Sequence[str]) -> None:
    """In a fork: the program that was asked for, in its folder, with its environment and files."""
    os.setsid()
    for number, name in ((0, os.devnull), *enumerate(asked["files"], 1)):
        file = os.open(name, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, number)
        os.close(file)
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(number, "rw"[number > 0], closefd=False) for number in range(3)
    )
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    tempfile.tempdir = None
    own = list(filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))
    sys.path[:] = ["", *own, *(path for path in base if path not in own)]
    importlib.invalidate_caches()
    sys.path_importer_cache.clear()
    subprocess.Popen = Forked  # type: ignore[misc]
    execute(asked["words"])


def execute(words: Sequence[str]) -> None:
    """Run `python WORDS` in this process."""
    sys.argv = list(words[1:])
    if words[0] == "-m":
        sys.path[0] = os.getcwd()
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        assert words[0] == "-c"
        main = sys.modules["__main__"] = ModuleType("__main__")
        sys.argv[0] = "-c"
        exec(words[1], vars(main))


class Forked(subprocess.Popen):  # type: ignore[type-arg]
    """Starts Python as a fork of this process as long as that is as good as new."""

    def __init__(self, args: Any, **options: Any) -> None:
        self.words = _words(args) if is_fresh() and "env" not in options and "cwd" not in options else []
        self.own_group = options.get("start_new_session", False)
        super().__init__(args, **options)

    def _execute_child(self, *arguments: Any) -> None:
        if not self.words:
            super()._execute_child(*arguments)  # type: ignore[misc]
            return
        passed, pipes = arguments[4], arguments[10:16]
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            with _leaving():
                if self.own_group:
                    os.setsid()
                for number, file in enumerate((pipes[0], pipes[3], pipes[5])):
                    if file not in (-1, number):
                        os.dup2(file, number)
                for name in os.listdir("/proc/self/fd"):
                    if int(name) > 2 and int(name) not in passed:
                        with suppress(OSError):
                            os.close(int(name))
                sys.stdin, sys.stdout, sys.stderr = (
                    os.fdopen(n, "rw"[n > 0], closefd=False) for n in range(3)
                )
                if self.words[0] == "-P":
                    del self.words[0], sys.path[0]
                execute(self.words)
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


def _words(args: Any) -> list[str]:
    """What follows `python`, if it is understood."""
    if not isinstance(args, list) or args[0] != sys.executable:
        return []
    return list(args[1:]) if {"-m", "-c"} & set(args[1:3]) and args[1] in ("-m", "-c", "-P") else []


@contextmanager
def _leaving() -> Iterator[NoReturn]:
    """End the process after the block as Python ends, without what its maker has still to do."""
    code: Any = 0
    try:
        yield  # type: ignore[misc]
    except SystemExit as leaving:
        code = leaving.code
    except BaseException as error:
        sys.excepthook(*sys.exc_info())
        code = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    try:
        if isinstance(code, str):
            print(code, file=sys.stderr)
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        if code == -signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        os._exit(code if isinstance(code, int) else bool(code))


if __name__ == "__main__":
    serve()
