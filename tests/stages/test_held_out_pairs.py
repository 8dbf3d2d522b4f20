"""What an alignment method learned from pairs shows on pairs held out."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness.axes.corpus import Split
from harness.axes.reward import Preference
from harness.data.template import Template
from harness.model.artifact import open_model
from harness.registry.known import registry
from harness.stages import _rollouts
from harness.stages._adaptation import adapt
from harness.stages._conversations import spread
from harness.stages._held_out_pairs import HeldOutPairs, _Asked
from harness.stages._preferences import PreferenceSource
from harness.stages.align import Align


def aligned(root: Path, *options: str, share: float = 0.3) -> tuple[dict[str, Any], Path, list[Any]]:
    """Facts, the tuned weights, and the pairs: answers of vowels are better than those of consonants."""
    rows = [
        {"prompt": f"Say {i}", "chosen": "aeiou"[i % 5] * 3, "rejected": "bcdfg"[i % 5] * 3}
        for i in range(60)
    ]
    file = root / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    shelf = tiny.Shelf(root / "shelf")
    out = shelf.new("aligned")
    given = [
        "model=pretrained",
        f"model.path={tiny.pretrained(root / 'hf')}",
        "feedback=preferences",
        f"feedback.path={file}",
        f"feedback.validation_share={share}",
        "align.batch_size=8",
        *options,
    ]
    return Align().run(tiny.work(shelf, "align", out, given, {})), out.path, rows


@pytest.mark.parametrize(
    ("there", "kept"), [(0, []), (1, [0]), (4, [0, 1, 2, 3]), (5, [0, 1, 2, 3]), (600, [0, 150, 300, 450])]
)
def test_what_is_held_out_is_of_every_kind(there: int, kept: list[int]) -> None:
    """A source lists one kind after another: its first items would be of one."""
    assert spread(range(there), 4) == kept


@pytest.mark.parametrize("name", ["grpo", "dpo"])
def test_all_kinds_of_exercise_are_measured(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    met = set[str]()
    encode, ask = PreferenceSource._encoded, _rollouts.RolloutSource._sample

    def encoding(self: PreferenceSource, preference: Any) -> Any:
        met.add(preference.prompt.split(":")[0].split(" ", 1)[-1])
        return encode(self, preference)

    def sampling(self: Any, items: Any, *, seed: int, from_start: bool) -> Any:
        met.update(item.turns[-1].text.split(":")[0].split(" ", 1)[-1] for item in items)
        return ask(self, items, seed=seed, from_start=from_start)

    monkeypatch.setattr(PreferenceSource, "_encoded", encoding)
    monkeypatch.setattr(_rollouts.RolloutSource, "_sample", sampling)
    pretrained = tiny.pretrained(tmp_path / "hf")
    options = ["model=pretrained", f"model.path={pretrained}", f"alignment={name}", "reward=rules"]
    shelf = tiny.Shelf(tmp_path / "shelf")
    work = tiny.work(shelf, "align", shelf.new("out"), options, {})
    adapted = adapt(open_model(work, trainable=True), work.one("peft"))
    if name == "dpo":
        HeldOutPairs(work, adapted.loaded.tokenizer, adapted.model, work.one("alignment").build())
    else:
        _rollouts.RolloutSource(work, adapted, work.one("alignment").build(), None)
    assert {"only", "the first", "Copy", "Find"} <= met


@pytest.mark.parametrize("name", ["dpo", "simpo"])
def test_planted_preferences_hold_on_pairs_never_met(name: str, tmp_path: Path) -> None:
    facts, _, _ = aligned(
        tmp_path,
        f"alignment={name}",
        "align.budget={unit: steps, amount: 12}",
        "align.learning_rate=3e-3",
    )
    assert 8 <= facts["held_out_pairs"] <= 32
    assert facts["preferences"] + facts["held_out_pairs"] == 60
    assert facts["held_out_reward_accuracy"] > 0.9
    assert facts["held_out_likelier_end"] >= facts["held_out_likelier_start"]


def test_the_margin_is_dpos_implicit_reward(tmp_path: Path) -> None:
    """Equation 5 of arXiv:2305.18290 without its beta, by transformers alone."""
    facts, path, rows = aligned(
        tmp_path,
        "alignment=dpo",
        "align.budget={unit: steps, amount: 2}",
        "align.learning_rate=1e-3",
        share=0.2,
    )
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf")
    template = Template(tokenizer)

    def log_prob(model: Any, prompt: str, answer: str) -> float:
        asked = template.prompt_ids(prompt)
        ids = asked + tokenizer(f" {answer}<|eos|>", add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        return sum(float(logits[place - 1, ids[place]]) for place in range(len(asked), len(ids)))

    start, end = (AutoModelForCausalLM.from_pretrained(p).eval() for p in (tmp_path / "hf", path))
    margins = {
        row["prompt"]: sum(
            sign * (log_prob(end, row["prompt"], row[side]) - log_prob(start, row["prompt"], row[side]))
            for side, sign in (("chosen", 1), ("rejected", -1))
        )
        for row in rows
    }
    from harness_plugins.feedback.preferences import Preferences

    held_out = [
        pair.prompt
        for pair in Preferences(
            Preferences.Config(path=str(tmp_path / "pairs.jsonl"), validation_share=0.2)
        ).preferences((), 0)
        if pair.split == "validation"
    ]
    assert facts["held_out_pairs"] == len(held_out)
    expected = [margins[str(prompt)] for prompt in held_out]
    assert facts["held_out_reward_margin"] == pytest.approx(sum(expected) / len(expected), abs=1e-4)
    share = sum(margin > 0 for margin in expected) / len(expected)
    assert facts["held_out_reward_accuracy"] == pytest.approx(share)


def test_nothing_held_out_is_said(tmp_path: Path) -> None:
    facts, _, _ = aligned(tmp_path, "alignment=dpo", "align.budget={unit: steps, amount: 1}", share=0.0)
    assert facts["held_out_pairs"] == 0
    assert "held_out_reward_accuracy" not in facts


def test_held_out_pairs_are_asked_as_the_policy_is_in_use() -> None:
    """The end with the hint that closes every prompt (arXiv:2302.02676), the start without."""
    pair = Preference(id="0", prompt="Say 1", chosen="a", rejected="b", split=Split.validation)
    hindsight = registry().get("alignment", "chain_of_hindsight")
    told = hindsight(hindsight.Config(good_hint="Well:"))
    for method, asked in ((None, "Say 1"), (told, "Say 1\nWell:")):
        rows = _Asked(method).turns(pair)  # type: ignore[arg-type]
        assert {name: [turn.text for turn in turns] for name, turns in rows.items()} == {
            "chosen": [asked, "a"],
            "rejected": [asked, "b"],
        }


def test_pairs_held_out_are_measured_in_the_format_of_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training in bfloat16 was measured in float32, where there are matrix units eight times slower."""
    from harness.stages import _held_out_pairs

    measured, formats = _held_out_pairs.answers_log_probs, set[bool]()

    def noted(*args: Any) -> Any:
        formats.add(torch.is_autocast_enabled("cpu"))
        return measured(*args)

    monkeypatch.setattr(_held_out_pairs, "answers_log_probs", noted)
    aligned(tmp_path, "alignment=dpo", "align.budget={unit: steps, amount: 1}", "precision=bf16")
    assert formats == {True}
