"""A fork of the warm process answers as a process that was started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import warm
from third_party import ROOT, distribution

ASKED = """
import json, os, signal, sys, tempfile
from harness.cli import main
from harness.registry.known import registry

told = {"path": sys.path, "arguments": sys.argv, "folder": os.getcwd(), "environment": dict(os.environ),
        "temporary": tempfile.gettempdir(), "umask": os.umask(0o22), "name": __name__,
        "threads": len(os.listdir("/proc/self/task")), "bytecode": sys.dont_write_bytecode,
        "signals": [str(signal.getsignal(n)) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)],
        "standard input": sys.stdin.read(), "known": registry.cache_info().currsize}
print(json.dumps(told, sort_keys=True))
commands = (["list"], ["show", "schedule", "mine"], ["run", "schedule=broken"], ["check", "nothing"],
            ["--cfg", "job", "schedule=mine"], ["plan", "schedule=mine", "scale=smoke"])
print([main(command) for command in commands])
print(sorted(name for name in sys.modules if name.startswith(("harness_plugins.", "harness.stages", "my_"))))
sys.exit(3)
"""
PLUGIN = '''
"""A schedule."""
from harness import Schedule, hookimpl


class Mine(Schedule):
    """Says what it is."""

    name = "mine"


@hookimpl
def harness_methods():
    return [Mine]
'''


def test_a_fork_answers_as_a_start(tmp_path: Path) -> None:
    """What commands print, what they return, what they find around them, and which plugins they import."""
    site, place = tmp_path / "site", tmp_path / "place"
    site.mkdir()
    distribution(site, "harness-my-schedule", "my_schedule", PLUGIN)
    distribution(
        site, "harness-broken", "my_broken", PLUGIN.replace('"mine"', '"broken"') + "import nowhere\n"
    )
    paths = os.pathsep.join(map(str, (site, ROOT, ROOT / "plugins")))
    environment = {**os.environ, "PYTHONPATH": paths, "XDG_CACHE_HOME": str(place / "cache")}
    words = ["-c", ASKED, "one", "two"]
    found = []
    for start in (False, True):
        place.mkdir()
        if start:
            done = subprocess.run(
                [sys.executable, *words],
                cwd=place,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
        else:
            done = warm.run(words, cwd=place, environment=environment)
        written = sorted(str(file.relative_to(place)) for file in place.rglob("*"))
        found.append((done.returncode, done.stdout, done.stderr, written))
        shutil.rmtree(place)
    assert found[0] == found[1]
    assert found[0][0] == 3
    assert "my_broken (harness-broken 1.0) does not load: No module named 'nowhere'" in found[0][1]
    assert "method: mine" in found[0][1]


def test_what_a_program_raises_is_what_a_start_raises(tmp_path: Path) -> None:
    for code, said, returned in (
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "", -9),
        ("raise KeyboardInterrupt", "KeyboardInterrupt\n", -2),
        ("import sys; sys.exit('words')", "words\n", 1),
        (
            "import atexit; atexit.register(print, 'bye', end=''); 1 / 0",
            "ZeroDivisionError: division by zero",
            1,
        ),
    ):
        done = warm.run(["-c", code], cwd=tmp_path, environment=os.environ)
        assert (done.returncode, done.stdout) == (returned, "bye" * ("bye" in code))
        assert said in done.stderr
