"""SmolLM2-135M-Instruct, imported into our transformer and as transformers runs it: one model, read twice.

`harness fetch smollm2_135m` brings the file; without it there is nothing to read.
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from harness import Document, LoadedModel, Subject
from harness.axes.corpus import Split
from harness.model.artifact import load_pretrained
from harness.model.checkpoint import converted
from harness.model.gguf import dequantized
from harness.registry.known import registry

pytestmark = [pytest.mark.slow, pytest.mark.shared]
PROMPTS = 20
WINDOW, BYTES = 256, 3000


@pytest.fixture(scope="module")
def routes(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Subject]:
    """The model as `model=smollm2_135m` and as `model.import=true` give it to evaluators."""
    root = tmp_path_factory.mktemp("store")
    plain = dequantized(smollm2, root=root)
    found = {}
    for name, path in (("theirs", plain), ("ours", converted(plain, replace={}, root=root))):
        loaded = load_pretrained(str(path))
        model: Any = loaded.model.eval()
        template = loaded.tokenizer.chat_template
        greedy: Any = registry().get("decoding", "greedy")
        found[name] = Subject(
            model=model,
            tokenizer=loaded.tokenizer,
            max_length=8192,
            template=template,
            decoding=greedy(greedy.Config()),
        )
    return found


@pytest.fixture(scope="module")
def prompts(shared_data: Path) -> list[str]:
    """Twenty questions that people asked."""
    rows = json.loads((shared_data / "alpaca_farm_eval_gpt35.json").read_text())
    return [row["instruction"] for row in rows if not row["input"]][:PROMPTS]


def test_logits_agree_on_real_prompts(routes: dict[str, Subject], prompts: list[str]) -> None:
    apart = 0.0
    with torch.inference_mode():
        for prompt in prompts:
            text = routes["ours"].prompt(prompt)
            assert text == routes["theirs"].prompt(prompt)
            assert text.endswith("<|im_start|>assistant\n")
            ids = routes["ours"].tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
            found, expected = (routes[name].model(input_ids=ids).logits for name in ("ours", "theirs"))
            apart = max(apart, float((found - expected).abs().max()))
    assert apart <= 1e-4


def test_greedy_answers_agree_and_end_where_the_template_ends_a_turn(
    routes: dict[str, Subject], prompts: list[str]
) -> None:
    answers = {
        name: LoadedModel(model=subject.model, tokenizer=subject.tokenizer, subject=subject).answer(
            prompts, max_new_tokens=32
        )
        for name, subject in routes.items()
    }
    assert answers["ours"] == answers["theirs"]
    short = "Answer with one word: what is the capital of France?"
    for subject in routes.values():
        tokenizer = subject.tokenizer
        ids = tokenizer(subject.prompt(short), add_special_tokens=False, return_tensors="pt")
        out = subject.model.generate(**ids, max_new_tokens=48, do_sample=False)
        new = out[0, ids["input_ids"].shape[1] :].tolist()
        assert len(new) < 48, "it ended by itself"
        assert tokenizer.convert_ids_to_tokens(new[-1]) == "<|im_end|>"


def test_perplexity_is_an_independent_loops(routes: dict[str, Subject], shared_data: Path) -> None:
    text = (shared_data / "tinyshakespeare.txt").read_text()[:BYTES]
    document = Document(id="0", text=text, domain="prose", split=Split.test)
    method = registry().get("evaluator", "perplexity")
    evaluator: Any = method(method.Config(window=WINDOW, max_bytes=None))
    for subject in routes.values():
        evaluation = evaluator.evaluate(
            "perplexity", dataclasses.replace(subject, documents=lambda split: [document])
        )
        found = {metric.metric: metric.value for metric in evaluation.metrics}
        total, count = loop(subject, text)
        assert found["loss"] == pytest.approx(total / count, abs=1e-5)
        bits = total / math.log(2) / len(text.encode())
        assert found["bits_per_byte"] == pytest.approx(bits, abs=1e-5)


@torch.inference_mode()
def loop(subject: Subject, text: str) -> tuple[float, int]:
    """Nats and tokens of a text: every window reads WINDOW tokens, the last one those before it again."""
    tokenizer = subject.tokenizer
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    stream, total, done = [tokenizer.bos_token_id, *ids], 0.0, 0
    while done < len(ids):
        end = min(done + WINDOW, len(ids))
        read = torch.tensor([stream[max(0, end - WINDOW) : end]])
        log_probs = subject.model(input_ids=read).logits[0, done - end :].double().log_softmax(-1)
        total -= sum(float(row[token]) for row, token in zip(log_probs, ids[done:end], strict=True))
        done = end
    return total, len(ids)
