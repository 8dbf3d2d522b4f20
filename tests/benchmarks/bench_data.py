"""From JSON Lines to token files: memory of every stage, seconds a megabyte, and the speed of all cores."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

MEGABYTES, MOST = 300, 400
CHAIN = ("corpus", "decontaminate", "tokenizer", "tokens")
STAGE = """
import importlib, json, resource, sys, time
from pathlib import Path
from types import SimpleNamespace
from harness.method import Choice
from harness.stage import Work
from harness.data.item_texts import held_out_documents

root, name = Path(sys.argv[1]), sys.argv[2]

def choice(axis, method, **options):
    kind = importlib.import_module(f"harness_plugins.{axis}.{method}").harness_methods()[0]
    return Choice(axis=axis, method=kind, config=kind.Config(**options))

CHOICES = {
    "corpus": lambda: {"corpus": choice("corpus", "jsonl", path=str(root / "pages.jsonl")), "filter": ()},
    "decontaminate": lambda: {"evaluator": (held_out_documents(),)},
    "tokenizer": lambda: {"tokenizer": choice("tokenizer", "byte_bpe")},
    "tokens": lambda: {"mixture": choice("mixture", "proportional")},
}
(kind,) = importlib.import_module(f"harness.stages.{name}").harness_stages()
inputs = {}
for made, by in (("documents", "corpus"), ("documents", "decontaminate"), ("tokenizer", "tokenizer")):
    if (root / by).is_dir():
        facts = json.loads((root / f"{by}.json").read_text())
        inputs[made] = SimpleNamespace(path=root / by, facts=facts)
(root / name).mkdir()
start = time.perf_counter()
facts = kind().run(
    Work(
        stage=name, part="", config=kind.Config(), choices=CHOICES[name](), inputs=inputs, seed=0,
        device="cpu", out=root / name, checkpoints=root, cell=None, load=None,
    )
)
(root / f"{name}.json").write_text(json.dumps(facts, default=str))
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps([time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
"""


def pages(file: Path, megabytes: int) -> None:
    """Made-up words by Zipf's law, in pages of 50 to 800."""
    rng = np.random.default_rng(0)
    letters = np.array(list("aeioubdgklmnprst"))
    words = np.array(["".join(rng.choice(letters, size=size)) for size in rng.integers(2, 10, size=20_000)])
    chances = 1 / np.arange(1, len(words) + 1)
    edges = np.cumsum(chances / chances.sum())
    written = 0
    with file.open("w") as stream:
        while written < megabytes * 1_000_000:
            drawn = words[np.searchsorted(edges, rng.random(int(rng.integers(50, 800))) * edges[-1])]
            written += stream.write(json.dumps({"text": " ".join(drawn)}) + "\n")


def test_300_megabytes_pass_through_every_stage_in_less_than_400_of_memory(tmp_path: Path) -> None:
    pages(tmp_path / "pages.jsonl", MEGABYTES)
    print(f"\n{MEGABYTES} MB of JSON Lines      seconds  processor  peak MiB")
    peaks = {}
    for name in CHAIN:
        command = [sys.executable, "-c", STAGE, str(tmp_path), name]
        made = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds, processor, peaks[name] = json.loads(made.stdout)
        print(f"{name:<26}{seconds:>10.1f}{processor:>11.1f}{peaks[name]:>10.0f}")
    facts = json.loads((tmp_path / "tokens.json").read_text())
    assert sum(facts["num_tokens"]["train"].values()) > 1e5 * MEGABYTES
    assert max(peaks.values()) < MOST, peaks
