"""From JSON Lines to token files: memory of every stage by size, speed beside datatrove's, and MinHash."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from bench import show
from harness_plugins.corpus.stdlib import Stdlib
from harness_plugins.filter.dedup_document import DedupDocument

from harness import Document, Split

pytestmark = pytest.mark.slow

MEGABYTES, MOST = 300, 400
GIGABYTES = float(os.environ.get("HARNESS_BENCH_GIGABYTES", "1"))
"""Of the large file; 5 takes an hour and 20 GB of disk."""
HELD_OUT = 0.002
"""Share of its documents for validation, and for test: their n-grams are held in memory, 24 bytes a word."""
WORKERS = 2
CHAIN = ("corpus", "decontaminate", "tokenizer", "tokens")
STAGE = """
import importlib, json, resource, sys, time
from pathlib import Path
from types import SimpleNamespace
from harness.method import Choice
from harness.stage import Work
from harness.data.item_texts import held_out_documents

root, name, options = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
shares = {key: options["held_out"] for key in ("validation_share", "test_share")}

def choice(axis, method, **options):
    kind = importlib.import_module(f"harness_plugins.{axis}.{method}").harness_methods()[0]
    return Choice(axis=axis, method=kind, config=kind.Config(**options))

CHOICES = {
    "corpus": lambda: {
        "corpus": choice("corpus", "jsonl", path=str(root / "pages"), **shares),
        "filter": tuple(choice("filter", name) for name in options["filters"]),
    },
    "decontaminate": lambda: {"item_texts": (held_out_documents(),)},
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
        stage=name, maker=kind, part="", config=kind.Config(), choices=CHOICES[name](), inputs=inputs, seed=0,
        device="cpu", out=root / name, checkpoints=root, load=None,
    )
)
(root / f"{name}.json").write_text(json.dumps(facts, default=str))
seconds = time.perf_counter() - start
own, below = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
processor = sum(used.ru_utime + used.ru_stime for used in (own, below))
print(json.dumps([seconds, processor, own.ru_maxrss / 1024, below.ru_maxrss / 1024]))
"""


def pages(file: Path, megabytes: int) -> None:
    """Made-up words by Zipf's law, in pages of 50 to 800."""
    rng = np.random.default_rng(0)
    letters = np.array(list("aeioubdgklmnprst"))
    words = np.array(["".join(rng.choice(letters, size=size)) for size in rng.integers(2, 10, size=20_000)])
    chances = 1 / np.arange(1, len(words) + 1)
    edges = np.cumsum(chances / chances.sum())
    written = 0
    file.parent.mkdir(exist_ok=True)
    with file.open("w") as stream:
        while written < megabytes * 1_000_000:
            drawn = words[np.searchsorted(edges, rng.random(int(rng.integers(50, 800))) * edges[-1])]
            written += stream.write(json.dumps({"text": " ".join(drawn)}) + "\n")


def stage(root: Path, name: str, **options: object) -> list[float]:
    """Run a stage in a process; seconds, processor seconds, and peak MiB of it and of its largest child."""
    asked = json.dumps({"held_out": 0.05, "filters": [], **options})
    command = [sys.executable, "-c", STAGE, str(root), name, asked]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not made.returncode, made.stderr
    return json.loads(made.stdout)  # type: ignore[no-any-return]


def chain(root: Path, megabytes: int, **options: object) -> dict[str, float]:
    """Peak MiB of every stage on a file of this size; the documents are those that were written."""
    pages(root / "pages" / "pages.jsonl", megabytes)
    rows = {name: stage(root, name, **options) for name in CHAIN}
    columns = ["stage", "seconds", "processor", "peak MiB"]
    show(f"{megabytes} MB of JSON Lines", columns, [[name, *row[:3]] for name, row in rows.items()])
    facts = json.loads((root / "tokens.json").read_text())
    assert sum(facts["num_tokens"]["train"].values()) > 1e5 * megabytes
    return {name: row[2] for name, row in rows.items()}


def test_300_megabytes_pass_through_every_stage_in_less_than_400_of_memory(tmp_path: Path) -> None:
    peaks = chain(tmp_path, MEGABYTES)
    assert max(peaks.values()) < MOST, peaks


def test_memory_grows_so_slowly_that_5_gigabytes_take_less_than_one(tmp_path: Path) -> None:
    sizes = [100, round(GIGABYTES * 1000)]
    for name in ("small", "large"):
        (tmp_path / name).mkdir()
    small, large = (
        chain(tmp_path / name, size, held_out=HELD_OUT)
        for name, size in zip(("small", "large"), sizes, strict=True)
    )
    slopes = {name: (large[name] - small[name]) / (sizes[1] - sizes[0]) for name in CHAIN}
    at_5000 = {name: large[name] + max(0.0, slopes[name]) * (5000 - sizes[1]) for name in CHAIN}
    show(
        "Memory",
        ["stage", "MiB a MB of text", "MiB at 5 GB"],
        [[name, slopes[name], at_5000[name]] for name in CHAIN],
    )
    assert max(at_5000.values()) < 1024, at_5000


THEIRS = """
import sys
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.filters import GopherQualityFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import DocumentTokenizer

pages, tokenizer, out, workers = sys.argv[1:]
LocalPipelineExecutor(
    pipeline=[
        JsonlReader(pages),
        GopherQualityFilter(),
        DocumentTokenizer(out, tokenizer, eos_token="<|eos|>", shuffle_documents=False),
    ],
    tasks=int(workers),
    workers=int(workers),
    logging_dir=out + ".logs",
    start_method="fork",
).run()
"""


def documentation(folder: Path, megabytes: float) -> int:
    """Pages of the language reference and of docstrings, in two files; bytes of text."""
    texts = [d.text for d in Stdlib(Stdlib.Config(domains=["docs"])).documents() if len(d.text) > 1000]
    folder.mkdir()
    size = 0
    with (folder / "0.jsonl").open("w") as first, (folder / "1.jsonl").open("w") as second:
        for number in range(10**9):
            text = f"Page {number}.\n\n{texts[number % len(texts)][:20_000]}"
            (first if number % 2 else second).write(json.dumps({"text": text, "id": str(number)}) + "\n")
            size += len(text.encode())
            if size > megabytes * 1e6:
                return size
    raise AssertionError


def test_reading_filtering_and_tokenizing_is_as_fast_as_datatroves_own_pipeline(tmp_path: Path) -> None:
    pytest.importorskip("datatrove")
    pytest.importorskip("spacy")
    size = documentation(tmp_path / "pages", 12)
    (tmp_path / "learned").mkdir()
    (tmp_path / "learned" / "pages").symlink_to(tmp_path / "pages")
    for name in ("corpus", "tokenizer"):
        stage(tmp_path / "learned", name)
    rows = []
    for turn in range(2):
        ours = tmp_path / f"ours{turn}"
        ours.mkdir()
        for name in ("pages", "tokenizer", "tokenizer.json"):
            (ours / name).symlink_to(tmp_path / ("" if name == "pages" else "learned") / name)
        before, start = os.times(), time.perf_counter()
        for name in ("corpus", "tokens"):
            stage(ours, name, filters=["gopher_quality"], held_out=0.0)
        rows.append(["ours", size, *_spent(before, start)])
        tokenizer = tmp_path / "learned" / "tokenizer" / "tokenizer.json"
        asked = [str(tmp_path / "pages"), str(tokenizer), str(tmp_path / f"theirs{turn}"), str(WORKERS)]
        before, start = os.times(), time.perf_counter()
        done = subprocess.run([sys.executable, "-c", THEIRS, *asked], capture_output=True, text=True)
        assert not done.returncode, done.stderr
        rows.append(["datatrove", size, *_spent(before, start)])
        kept = json.loads((ours / "corpus.json").read_text())["num_documents"]["train"]
        stats = json.loads((tmp_path / f"theirs{turn}.logs" / "stats.json").read_text())
        assert sum(kept.values()) == stats[1]["stats"]["forwarded"]
    columns = ["pipeline", "bytes", "seconds", "processor", "MB/s", "MB a processor second"]
    show(
        "JSON Lines, Gopher's quality rules, byte BPE; in turn, two processes",
        columns,
        [
            [name, size, seconds, used, size / 1e6 / seconds, size / 1e6 / used]
            for name, size, seconds, used in rows
        ],
    )
    best = {name: min(row[3] for row in rows if row[0] == name) for name in ("ours", "datatrove")}
    print(f"ours / datatrove, by processor seconds: {best['datatrove'] / best['ours']:.2f} x")
    assert best["ours"] <= best["datatrove"], best


def _spent(before: os.times_result, start: float) -> tuple[float, float]:
    """Seconds, and processor seconds of the children that ended meanwhile."""
    now = os.times()
    used = now.children_user - before.children_user + now.children_system - before.children_system
    return time.perf_counter() - start, used


COUNTS = (10_000, 100_000, 1_000_000)


def test_minhash_is_nearly_linear_to_a_million_documents() -> None:
    rng = np.random.default_rng(0)
    words = np.array([f"w{number}" for number in range(50_000)])
    method = DedupDocument()
    list(method.apply(iter(())))
    seconds, rows, flagged, last = 0.0, [], 0, None
    for number in range(max(COUNTS)):
        if number % 20 == 19 and last is not None:  # a copy with a word more
            text = f"{last} more"
        else:
            text = last = " ".join(words[rng.integers(0, len(words), size=60)])
        document = Document(id="", text=text, domain="d", split=Split.train)
        start = time.process_time()
        flagged += isinstance(method.judge(document), str)
        seconds += time.process_time() - start
        if number + 1 in COUNTS:
            rows.append((number + 1, seconds, flagged / (number + 1)))
    exponents = [
        math.log(after[1] / before[1]) / math.log(after[0] / before[0])
        for before, after in itertools.pairwise(rows)
    ]
    show("MinHash of 60-word documents", ["documents", "processor seconds", "share of copies"], rows)
    print("exponent: " + ", ".join(f"{exponent:.3f}" for exponent in exponents))
    assert max(exponents) < 1.1
    assert abs(rows[-1][2] - 0.05) < 0.001
