"""What the plan says of decodings: models of other tokens, caches that forget, more than there is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.compose import compose, publish
from harness.plan.make import make_plan
from harness.plan.problems import problems
from harness.store import Store

STAGES = "stages=[corpus,tokenizer,tokens,pretrain,extend,evaluate]"
DRAFT = "decoding.draft='cell:model.num_layers=1'"


def found(*overrides: str) -> list[str]:
    publish()
    return [str(problem) for problem in problems(compose(overrides))]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("decoding=beam", "decoding.num_beams=5000"),
            "decoding.num_beams: 5000 is more than the vocabulary's",
        ),
        (("decoding=contrastive_search", "decoding.top_k=5000"), "decoding.top_k: 5000 is more than"),
        (("decoding=speculative", DRAFT, "attention=linear"), "the cache of attention=linear cannot forget"),
        (("decoding=speculative", DRAFT, "attention=paged"), "attention.cache=paged cannot forget"),
        (("decoding=speculative", DRAFT, "context=streaming", STAGES), "context=streaming cannot forget"),
        (
            ("decoding.cache_bits=4", "attention=mamba2"),
            "attention=mamba2 keeps something else than all keys",
        ),
        (("decoding.cache_bits=4", "context=rerope", STAGES), "context=rerope keeps something else"),
    ],
)
def test_what_a_model_cannot_give_a_decoding_is_refused(options: tuple[str, ...], message: str) -> None:
    assert any(message in problem for problem in found(*options)), found(*options)


def test_what_it_can_is_not() -> None:
    assert found("decoding=speculative", DRAFT, "context=rerope", STAGES) == []
    assert found("decoding.cache_bits=4", "context=yarn", STAGES) == []


def refused(tmp_path: Path, *overrides: str) -> list[str]:
    """What a whole plan says, which knows the models that options name."""
    plan = make_plan([*overrides, "scale=smoke"], store=Store(tmp_path / "store"))
    return [str(problem) for cell in plan.cells for problem in cell.problems]


@pytest.mark.parametrize(
    ("draft", "message"),
    [
        ("model.num_layers=1", ""),
        ("pretrain.budget.amount=1000", ""),
        ("tokenizer.vocab_size=500", "500 entries of tokenizer=byte_bpe against"),
        ("tokenizer=byte", "of tokenizer=byte against"),
    ],
)
def test_a_draft_of_another_tokenizer_is_refused_by_the_plan(
    draft: str, message: str, tmp_path: Path
) -> None:
    problems = refused(
        tmp_path, "decoding=speculative", f"decoding.draft='cell:{draft}'", "evaluator=[generation]"
    )
    told = [problem for problem in problems if "its tokenizer is another one" in problem]
    assert bool(told) == bool(message), problems
    assert message in "".join(told)


def test_drafts_from_directories_are_compared_token_by_token(tmp_path: Path) -> None:
    import tiny_models as tiny

    own, other = tiny.pretrained(tmp_path / "own"), tiny.pretrained(tmp_path / "other", seed=1)
    given = ["model=pretrained", f"model.path={own}", "stages=[corpus,evaluate]", "evaluator=[generation]"]
    given += ["decoding=speculative", f"decoding.draft='path:{other}'"]
    assert not any("another one" in problem for problem in refused(tmp_path, *given))
    file = other / "tokenizer.json"
    stated: dict[str, Any] = json.loads(file.read_text())
    *_, first, second = stated["model"]["vocab"]
    ids = stated["model"]["vocab"]
    ids[first], ids[second] = ids[second], ids[first]
    file.write_text(json.dumps(stated))
    assert any("another one" in problem for problem in refused(tmp_path, *given))
