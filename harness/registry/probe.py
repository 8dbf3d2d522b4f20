"""Every plugin loaded once in a child, which may hang, exit or die: what it brings, or why it does not load.

No other process imports a module that failed here. What plugins print while they load is kept apart.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from typing import IO, Any

from harness.errors import ConfigError, HarnessError

TIMEOUT = "HARNESS_PLUGIN_TIMEOUT"
"""Environment variable: seconds that each module may take."""
SECONDS = 30.0
PATIENCE = 5.0
"""Seconds after which the user is told what is waited for."""

Inbox = queue.SimpleQueue[bytes]
"""Lines of the child; an empty one at their end."""
_BOOT = (
    "import json, sys; asked = json.load(sys.stdin); sys.path[:] = asked['path']; "
    "from harness.compose.index_child import main; main(int(sys.argv[1]), asked['refused'])"
)


def limit() -> float:
    """Seconds that each module may take.

    Raises: ConfigError if the environment says something else than a positive number
    """
    told = os.environ.get(TIMEOUT, "")
    try:
        seconds = float(told or SECONDS)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise ConfigError(f"{TIMEOUT}={told} is no number of seconds; use e.g. {TIMEOUT}={SECONDS:g}")
    return seconds


def probe() -> dict[str, Any]:
    """The content of the index (see `registry.index`), whatever single plugins do.

    Raises: HarnessError if harness itself cannot be imported
    """
    refused: dict[str, str] = {}
    while True:
        with tempfile.TemporaryFile() as said, _started(refused, said) as (process, inbox):
            found = _listen(process, inbox, said)
        if "refused" not in found:
            return found
        refused |= found["refused"]


@contextlib.contextmanager
def _started(refused: Mapping[str, str], said: IO[bytes]) -> Iterator[tuple[subprocess.Popen[bytes], Inbox]]:
    """The child and its news, line by line; it is gone at the end, with all it may have started."""
    news, channel = os.pipe()
    command = [sys.executable, "-P", "-c", _BOOT, str(channel)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=said, stderr=said, pass_fds=(channel,), start_new_session=True
    )
    os.close(channel)
    inbox: Inbox = queue.SimpleQueue()
    reader = threading.Thread(target=_forward, args=(news, inbox), daemon=True)
    reader.start()
    try:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin as asked:
            asked.write(json.dumps({"path": sys.path, "refused": refused}).encode())
        yield process, inbox
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _forward(news: int, inbox: Inbox) -> None:
    with os.fdopen(news, "rb") as lines:
        for line in lines:
            inbox.put(line)
    inbox.put(b"")


def _listen(process: subprocess.Popen[bytes], inbox: Inbox, said: IO[bytes]) -> dict[str, Any]:
    """The child's result, or {"refused": {module: cause}} for the module that it did not survive."""
    allowed = limit()
    current: dict[str, Any] = {}
    printed: list[dict[str, str]] = []
    while line := _next(inbox, current.get("plugin", ""), allowed):
        news = json.loads(line)
        text = _text(said, current.get("printed", 0), news.get("printed"))
        if text and current:
            printed.append({"module": current["module"], "text": text})
        if "module" not in news:
            return news if "refused" in news else {**news, "printed": printed}
        current = news
    if line is None:
        cause = f"it takes longer than {allowed:g} s ({TIMEOUT}={allowed * 10:g} would wait longer)"
        return {"refused": {current["module"]: cause}}
    code = process.wait()
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    last = _text(said, current.get("printed", 0)).splitlines()[-1:]
    cause = ": ".join([f"it ended the process that imported it with {how}", *last])
    if not current:
        raise HarnessError(f"the installed methods cannot be read: {cause}")
    return {"refused": {current["module"]: cause}}


def _text(said: IO[bytes], begin: int, end: int | None = None) -> str:
    """What was printed from one size of the file to another; to its end by default."""
    size = os.fstat(said.fileno()).st_size if end is None else end
    return os.pread(said.fileno(), size - begin, begin).decode(errors="replace").strip()


def _next(inbox: Inbox, plugin: str, allowed: float) -> bytes | None:
    """The next line, empty at the end; None where a plugin keeps it waiting longer than is allowed."""
    if not plugin:  # harness itself is being imported
        return inbox.get()
    try:
        return inbox.get(timeout=min(PATIENCE, allowed))
    except queue.Empty:
        pass
    if allowed > PATIENCE:
        print(
            f"harness: plugin {plugin} has been loading for {PATIENCE:g} s; stopped after {allowed:g} s",
            file=sys.stderr,
            flush=True,
        )
        with contextlib.suppress(queue.Empty):
            return inbox.get(timeout=allowed - PATIENCE)
    return None
