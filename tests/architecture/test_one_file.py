"""Adding a method costs one file: dropped into its axis's folder, it is listed, composed and checked."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import warm

ROOT = Path(__file__).parents[2]

HALVING = '''"""Halving: the rate falls by half in every tenth of the run."""

from harness import Method, Schedule, hookimpl


class Halving(Schedule):
    """Exponential decay.

    Paper: none, a test
    """

    name = "halving"

    def decay(self, progress: float) -> float:
        return 0.5 ** (10 * progress)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Halving]
'''

SEEN = """
import json
from harness.compose import compose
from harness.compose.describe import describe
from harness.commands.reference.axis_pages import axis_page
from harness.registry.known import registry
known = registry()
method = known.get("schedule", "halving")
listed = describe(method, known)
cell = compose(["schedule=halving", "schedule.warmup_share=0.2"])
import pytest
code = pytest.main(["-q", "-p", "no:cacheprovider", "--import-mode=importlib", "-k", "halving",
                    *(f"harness/conformance/test_{suite}.py" for suite in ("methods", "schedule"))])
print(json.dumps({"package": listed["package"], "config": cell.config["schedule"], "code": int(code),
                  "documented": "Exponential decay." in axis_page("schedule")}))
"""


def test_a_new_method_is_one_new_file(tmp_path: Path) -> None:
    plugins = tmp_path / "harness_plugins"
    shutil.copytree(ROOT / "plugins" / "harness_plugins", plugins)  # with what is compiled, as it stays valid
    (plugins / "schedule" / "halving.py").write_text(HALVING)
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}", "XDG_CACHE_HOME": str(tmp_path)}
    done = warm.run(["-c", SEEN], cwd=ROOT, environment=environment)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["package"] == "harness-lm"
    assert seen["config"] == {"method": "halving", "warmup_share": 0.2}
    assert seen["documented"]
    assert seen["code"] == 0, done.stdout
