"""Simulated records: a logistic model of items, methods and seeds, in the store's own format."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

DEMO_FACTORS: dict[str, Any] = {
    "peft": {"peft": ["full", "lora"]},
    "alignment": {"none": {"alignment": "none"}, "dpo": {"alignment": "dpo"}},
    "quantizer": {
        "16 bit": {"quantizer": "none"},
        "8 bit": {"quantizer": "rtn", "quantizer.bits": 8},
        "4 bit": {"quantizer": "gptq", "quantizer.bits": 4},
    },
}
EFFECTS = {"peft.full": 0.3, "alignment.dpo": 0.5, "quantizer.8 bit": -0.02, "quantizer.4 bit": -0.45}
"""Logit shifts of levels in `demo`."""
MEMORY = {"16 bit": 2.0, "8 bit": 1.1, "4 bit": 0.66}


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def draw(
    rng: np.random.Generator, *, cells: int, seeds: int, items: int, effect: np.ndarray, seed_sd: float
) -> np.ndarray:
    """Correct answers, cells x seeds x items: item difficulty + effect of the cell + seed noise."""
    difficulty = rng.normal(0, 1, items)
    logit = effect[:, None, None] + rng.normal(0, seed_sd, (cells, seeds, 1)) + difficulty
    return (rng.random((cells, seeds, items)) < sigmoid(logit)).astype(float)


def levels_of(factors: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """Factor -> label -> overrides."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, spec in factors.items():
        if isinstance(spec, list):
            found[name] = {str(v): {name: v} for v in spec}
            continue
        (key, values), *rest = spec.items()
        if not rest and isinstance(values, list):
            found[name] = {str(v): {key: v} for v in values}
        else:
            found[name] = {label: dict(overrides) for label, overrides in spec.items()}
    return found


def config_of(overrides: Mapping[str, Any], seed: int) -> dict[str, Any]:
    config: dict[str, Any] = {
        "model": {"dim": 128, "num_layers": 4},
        "optimizer": {"method": "adamw", "weight_decay": 0.1},
        "pretrain": {"learning_rate": 3e-3, "budget": {"unit": "bytes", "amount": 2e6}, "batch_size": 16},
        "instruct": {"learning_rate": 1e-3, "budget": {"unit": "bytes", "amount": 1e6}},
        "peft": {"method": "lora", "rank": 8},
        "alignment": {"method": "none"},
        "quantizer": {"method": "none"},
        "seed": seed,
        "base_seed": 0,
    }
    for key, value in overrides.items():
        head, _, rest = key.partition(".")
        if not rest:
            config[head] = {"method": value} if isinstance(config.get(head), dict) else value
        else:
            node = config.setdefault(head, {})
            *middle, last = rest.split(".")
            for part in middle:
                node = node.setdefault(part, {})
            node[last] = value
    return config


def record_of(
    *,
    name: str,
    factors: Mapping[str, Any],
    levels: Mapping[str, str],
    seed: int,
    seeds: Sequence[int],
    **extra: Any,
) -> dict[str, Any]:
    """A record without metrics, in the format of the store."""
    known = levels_of(factors)
    overrides = {k: v for factor, level in levels.items() for k, v in known[factor][level].items()}
    config = config_of(overrides, seed)
    cell = hashlib.sha256(json.dumps([config, extra], sort_keys=True).encode()).hexdigest()[:16]
    lines = tuple(f"{k}={v}" for k, v in overrides.items())
    record = {
        "format": 1,
        "sweep": name,
        "cell": cell,
        "overrides": [f"experiment={name}", *lines, f"seed={seed}"],
        "config": config,
        "experiment": {
            "name": name,
            "question": "Does 4-bit hurt a LoRA-tuned model more than a fully tuned one?",
            "factors": factors,
            "baseline": {factor: next(iter(known[factor])) for factor in factors},
            "seeds": list(seeds),
            "claims": [],
            "reseed": "touched",
            "report": None,
        },
        "levels": dict(levels),
        "seed": seed,
        "seed_from": "instruct",
        "outcome": {"status": "ok", "reason": "", "stage": None, "step": None},
        "stages": [
            {"stage": s, "part": "", "key": hashlib.sha256(f"{s}{cell * (i > 1)}".encode()).hexdigest(),
             "seed": seed if i > 1 else 0, "reused": i < 2, "seconds": 0.0 if i < 2 else 4.2 + i}
            for i, s in enumerate(("corpus", "pretrain", "instruct", "quantize", "evaluate"))
        ],
        "metrics": [],
        "facts": {
            "corpus": {"sha256": "c0ffee" * 8, "documents": 1200},
            "pretrain": {
                "tokens": 1_048_576, "bytes": 2_000_000, "steps": 256, "effective_batch": 16,
                "sequence_length": 256, "dtype": "float32", "tokens_per_second": 4100.0 + seed,
                "final_loss": 2.1, "peak_memory": 3.1e8,
            },
            "evaluate": {"evaluator_version": "0.4.13", "truncated_contexts": 0},
        },
        "effects": {"quantize": {"bits_per_weight": 16.0}},
        "provenance": {
            "harness": "0.1.0",
            "versions": {"torch": "2.13.0", "transformers": "5.23.0", "peft": "0.21.0", "lm_eval": "0.4.13"},
            "git": {"commit": "59b613d" + "0" * 33, "dirty": False},
            "python": "3.11.9",
            "platform": "Linux-x86_64",
            "hardware": {"cpu": "2 cores", "memory_gib": 23, "gpu": None},
            "started": "2026-01-01T10:00:00+00:00",
            "finished": f"2026-01-01T10:{seed:02d}:30+00:00",
            "command": f"harness run experiment={name} {' '.join(repr(x) for x in lines)} seed={seed}",
        },
    }  # fmt: skip
    record.update(extra)
    return record


def metric(evaluator: str, task: str, name: str, value: float, **rest: Any) -> dict[str, Any]:
    return {
        "evaluator": evaluator, "task": task, "metric": name, "value": value,
        "unit": "", "higher_is_better": True, "stderr": None, "n": 0, **rest,
    }  # fmt: skip


def add_items(
    record: dict[str, Any], samples: dict[str, pd.DataFrame], *, task: str, correct: np.ndarray
) -> None:
    """A binary lm_eval task with its samples."""
    n = len(correct)
    words = ("import", "return", "yield", "lambda", "global", "assert", "except", "finally")
    stderr = float(correct.std(ddof=1) / np.sqrt(n)) if n > 1 else None
    record["metrics"].append(metric("lm_eval", task, "acc", float(correct.mean()), stderr=stderr, n=n))
    targets = [words[(i * 7) % len(words)] for i in range(n)]
    samples[f"lm_eval.{task}"] = pd.DataFrame(
        {
            "task": task,
            "doc_hash": [hashlib.sha256(f"{task}{i}".encode()).hexdigest()[:16] for i in range(n)],
            "prompt": [
                f"Copy the keyword that stands at place {i}: {' '.join(words)}\nAnswer:" for i in range(n)
            ],
            "answer": [
                t if c else words[(i * 5 + 1) % len(words)]
                for i, (t, c) in enumerate(zip(targets, correct, strict=True))
            ],
            "target": targets,
            "acc": correct,
        }
    )


def write(root: Path, record: dict[str, Any], samples: Mapping[str, pd.DataFrame] | None = None) -> Path:
    """One record into a store."""
    folder = root / "records" / record["sweep"] / record["cell"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "record.json").write_text(json.dumps(record))
    for name, frame in (samples or {}).items():
        (folder / "samples").mkdir(exist_ok=True)
        frame.to_parquet(folder / "samples" / f"{name}.parquet", index=False)
    return folder


def experiment(
    root: Path,
    *,
    name: str = "demo",
    factors: Mapping[str, Any] = DEMO_FACTORS,
    seeds: Sequence[int] = (0, 1, 2),
    items: int = 120,
    effects: Mapping[str, float] = EFFECTS,
    seed_sd: float = 0.1,
    tasks: Sequence[str] = ("instructions", "recall"),
    claims: Sequence[Mapping[str, Any]] = (),
    report: Any = None,
    random_state: int = 0,
    details: int = 0,
) -> Path:
    """A whole sweep's records: tasks with items, bits per byte, win rate, memory and speed.

    `details` is how many further options and measured facts a record holds.
    """
    rng = np.random.default_rng(random_state)
    known = levels_of(factors)
    combinations = list(itertools.product(*known.values()))
    shift = np.array(
        [sum(effects.get(f"{f}.{v}", 0.0) for f, v in zip(known, c, strict=True)) for c in combinations]
    )
    answers = {
        task: draw(rng, cells=len(combinations), seeds=len(seeds), items=items, effect=shift, seed_sd=seed_sd)
        for task in tasks
    }
    for c, combination in enumerate(combinations):
        for s, seed in enumerate(seeds):
            levels = dict(zip(known, combination, strict=True))
            record = record_of(name=name, factors=factors, levels=levels, seed=seed, seeds=seeds)
            record["experiment"].update(claims=list(claims), report=report)
            record["config"]["more"] = {f"option_{i}": 0.1 * i for i in range(details)}
            record["facts"]["more"] = {f"fact_{i}": c + s + 0.1 * i for i in range(details)}
            samples: dict[str, pd.DataFrame] = {}
            bits = 2.5 - 0.08 * shift[c] + rng.normal(0, 0.02 * max(seed_sd, 0.01) / 0.1)
            record["metrics"].append(
                metric(
                    "perplexity",
                    "perplexity",
                    "bits_per_byte",
                    bits,
                    unit="bits/byte",
                    higher_is_better=False,
                    n=64,
                )
            )
            for task in tasks:
                add_items(record, samples, task=task, correct=answers[task][c, s])
            wins = rng.choice([0.0, 0.5, 1.0], size=items, p=win_chances(shift[c]))
            record["metrics"].append(
                metric(
                    "win_rate",
                    "win_rate",
                    "win_rate",
                    float(wins.mean()),
                    stderr=float(wins.std() / items**0.5),
                    n=items,
                )
            )
            memory = MEMORY.get(levels.get("quantizer", ""), 2.0)
            record["metrics"].append(
                metric("efficiency", "efficiency", "memory", memory, unit="MiB", higher_is_better=False)
            )
            speed = 900 / memory**0.3 + rng.normal(0, 8)
            record["metrics"].append(
                metric("efficiency", "efficiency", "tokens_per_second", speed, unit="tokens/s")
            )
            record["facts"]["pretrain"]["loss_curve"] = [
                [step, 5.5 * (step + 8) ** -0.18 + 0.3] for step in range(0, 256, 4)
            ]
            record["facts"]["instruct"] = {
                "tokens": 300_000, "steps": 80,
                "trainable_parameters": 20_000 if levels.get("peft") == "lora" else 800_000,
                "loss_curve": [[s, (3.2 - 0.1 * shift[c]) * (s + 3) ** -0.25] for s in range(0, 80, 2)],
            }  # fmt: skip
            write(root, record, samples)
    return root


def win_chances(shift: float) -> list[float]:
    p = float(sigmoid(np.array(shift)))
    return [(1 - p) * 0.8, 0.2, p * 0.8]


def edit(root: Path, name: str, index: int, **changes: Any) -> Path:
    """Change top-level keys of the `index`-th record of a sweep; returns its folder."""
    path = sorted((root / "records" / name).glob("*/record.json"))[index]
    record = json.loads(path.read_text())
    for key, value in changes.items():
        record[key] = value(record[key]) if callable(value) else value
    path.write_text(json.dumps(record))
    return path.parent
