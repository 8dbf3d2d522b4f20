"""What the plan refuses before anything runs."""

from dataclasses import dataclass
from typing import Any

from harness.axes.stabilizer import Stabilizer
from harness.compose import compose
from harness.method import Choice
from harness.problems import _writers, problems


def messages(*overrides: str) -> list[str]:
    return [str(problem) for problem in problems(compose(overrides))]


def test_the_default_cell_has_no_problem() -> None:
    assert messages() == []


def test_rope_scaling_on_alibi_is_refused_with_the_way_out() -> None:
    (problem,) = messages("context=yarn", "position=alibi")
    assert "context=yarn requires 'rotary', which position=alibi does not provide" in problem
    assert "position=rope" in problem


def test_an_impossible_shape_is_found_on_the_meta_device() -> None:
    (problem,) = messages("attention=grouped_query", "attention.num_kv_heads=3")
    assert "attention.num_kv_heads=3 must divide model.num_heads=4; use one of [1, 2, 4]" in problem


def test_a_choice_that_no_stage_reads_is_refused() -> None:
    (problem,) = messages("quantizer=rtn", "stages=[corpus,tokenizer,tokens,pretrain,evaluate]")
    assert "quantizer=rtn changes nothing: no stage reads it; add one of ['quantize']" in problem


def test_two_writers_of_one_resource_are_refused_unless_one_comes_after() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Options(Stabilizer.Config):
        pass

    def writer(word: str, **declared: Any) -> Choice:
        kind = type(word, (Stabilizer,), {"name": word, "changes": frozenset({"scores"}), **declared})
        return Choice(axis="stabilizer", method=kind, config=Options())

    first, second = writer("first"), writer("second")
    (problem,) = _writers([first, second])
    assert "stabilizer=first and stabilizer=second both change 'scores'" in problem.message
    assert not list(_writers([first, writer("polite", after=frozenset({"scores"}))]))


def test_a_methods_own_check_is_asked() -> None:
    assert any("tokenizer.vocab_size" in text for text in messages("tokenizer.vocab_size=3"))
