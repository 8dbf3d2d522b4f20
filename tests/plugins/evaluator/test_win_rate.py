"""Win rates: between files, controlled for length, with the position bias of the judge."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness_plugins.evaluator.win_rate import WinRate, metrics
from scipy.special import expit

from harness import ConfigError, DataError, Duel, Judge, Subject, length_controlled
from harness.compose import compose


class Longer(Judge):
    """Prefers the longer answer."""

    name = "longer"

    def prefer(self, duels: list[Duel]) -> list[float]:  # type: ignore[override]
        return [0.5 + 0.5 * float(np.sign(len(d.first) - len(d.second))) for d in duels]


class First(Judge):
    """Prefers whatever stands first; says nothing of every fourth duel."""

    name = "first"

    def prefer(self, duels: list[Duel]) -> list[float]:  # type: ignore[override]
        return [float("nan") if d.prompt.endswith(("4", "8")) else 1.0 for d in duels]  # type: ignore[union-attr]


def subject(judge: Judge) -> Subject:
    return Subject(model=None, tokenizer=None, max_length=64, judge=judge)


def write(file: Path, answers: list[str]) -> str:
    rows = [{"instruction": f"Q{i}", "output": text} for i, text in enumerate(answers)]
    file.write_text(json.dumps(rows))
    return str(file)


def evaluate(judge: Judge, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    found = WinRate(WinRate.Config(**options)).evaluate("win_rate", subject(judge))
    return {metric.metric: metric for metric in found.metrics}, found.facts


def test_answers_in_files_meet(tmp_path: Path) -> None:
    ours = write(tmp_path / "a.json", ["long answer", "b", "same"])
    theirs = write(tmp_path / "b.json", ["short", "longer", "same"])
    found, facts = evaluate(Longer(), answers=ours, baseline_answers=theirs)
    assert found["win_rate"].value == pytest.approx((1 + 0 + 0.5) / 3)
    assert found["win_rate"].n == 3
    assert found["position_bias"].value == 0
    assert facts["against"] == "file"


def test_prompts_for_tuning_are_never_those_of_the_report() -> None:
    validation, test = (
        {item.prompt for item in WinRate(WinRate.Config(split=split)).items()}
        for split in ("validation", "test")
    )
    assert validation
    assert not validation & test
    with pytest.raises(ConfigError, match=r"win_rate\.split=train must be validation or test"):
        WinRate.Config(split="train")


def test_a_judge_of_positions_is_found_out(tmp_path: Path) -> None:
    ours = write(tmp_path / "a.json", [f"a{i}" for i in range(10)])
    theirs = write(tmp_path / "b.json", [f"b{i}" for i in range(10)])
    found, facts = evaluate(First(), answers=ours, baseline_answers=theirs)
    assert found["win_rate"].value == 0.5
    assert found["win_rate"].stderr == pytest.approx((0.25 / 8) ** 0.5), "every duel was a coin toss"
    assert found["position_bias"].value == 0.5
    assert facts["excluded_share"] == pytest.approx(0.2)
    assert facts["orders_disagree"] == 8


def test_length_control_finds_the_planted_strength() -> None:
    """Preferences are exactly logit p = theta + phi tanh(d / std); the controlled rate is that of theta."""
    longer = np.random.default_rng(0).normal(50, 200, 400)
    wins = expit(0.3 + 1.7 * np.tanh(longer / longer.std(ddof=1)))
    rate, error = length_controlled(wins, longer)
    assert rate == pytest.approx(expit(0.3), abs=1e-9)
    assert error < 0.01


def test_length_control_of_drawn_verdicts_has_an_honest_error() -> None:
    rng = np.random.default_rng(1)
    rates, errors = [], []
    for _ in range(200):
        longer = rng.normal(100, 300, 300)
        p = expit(-0.4 + 1.2 * np.tanh(longer / longer.std(ddof=1)))
        rate, error = length_controlled((rng.random(300) < p).astype(float), longer)
        rates.append(rate)
        errors.append(error)
    assert np.mean(rates) == pytest.approx(expit(-0.4), abs=0.01)
    assert np.mean(errors) == pytest.approx(np.std(rates), rel=0.15)


def test_length_control_equals_a_librarys_logistic_fit() -> None:
    import statsmodels.api as sm

    rng = np.random.default_rng(2)
    longer, wins = rng.normal(10, 80, 150), rng.choice([0.0, 0.5, 1.0], 150)
    design = np.stack([np.ones(150), np.tanh(longer / longer.std(ddof=1))], axis=1)
    fit = sm.GLM(wins, design, family=sm.families.Binomial()).fit()
    assert length_controlled(wins, longer)[0] == pytest.approx(expit(fit.params[0]), abs=1e-8)


@pytest.mark.parametrize(("theta", "phi", "duels"), [(-0.8, 0.9, 805), (0.3, -0.5, 805), (1.2, 0.4, 252)])
def test_length_control_equals_alpacaevals_fit_of_probable_wins(theta: float, phi: float, duels: int) -> None:
    """AlpacaEval 2 without its term for difficulty: soft wins as weighted labels, L1 chosen by folds."""
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.model_selection import GroupKFold

    rng = np.random.default_rng(0)
    longer = rng.normal(30, 200, duels)
    length = np.tanh(longer / longer.std(ddof=1))
    p = expit(theta + phi * length)
    wins = rng.beta(5 * p, 5 * (1 - p))
    design = np.tile(np.stack([length, np.ones(duels)], axis=1), (2, 1))
    labels, weights = np.repeat([1, 0], duels), np.concatenate([wins, 1 - wins])
    folds = list(GroupKFold(5).split(design, labels, np.tile(np.arange(duels), 2)))
    fit = LogisticRegressionCV(
        cv=folds,
        l1_ratios=(1,),
        solver="liblinear",
        fit_intercept=False,
        scoring="neg_log_loss",
        random_state=123,
        use_legacy_attributes=False,
    ).fit(design, labels, sample_weight=weights)
    assert length_controlled(wins, longer)[0] == pytest.approx(expit(fit.coef_[0, 1]), abs=1e-3)


def test_a_shut_out_and_equal_lengths_stay_finite() -> None:
    ones = np.ones(12)
    found = {m.metric: m for m in metrics("t", ones, ones, np.zeros(12))}
    assert found["length_controlled_win_rate"].value == pytest.approx(1, abs=1e-3)
    assert found["win_rate"].stderr == 0


def test_draws_wherever_answers_are_equally_long_leave_a_finite_error() -> None:
    """All duels of equal length are draws, so that their residuals cancel up to rounding."""
    wins, longer = np.full(64, 0.5), np.repeat([0.0, 1.0], [24, 40])
    wins[24:28], wins[28:31] = 0.0, 1.0
    for order in (np.random.default_rng(seed).permutation(64) for seed in range(50)):
        rate, error = length_controlled(wins[order], longer[order])
        assert rate == pytest.approx(0.5, abs=1e-6)
        assert 0 <= error < 1e-6


def test_the_plan_refuses_a_judge_that_sees_no_difference(tmp_path: Path) -> None:
    file = write(tmp_path / "prompts.json", ["a", "b"])
    cell = compose(["evaluator=[win_rate]", f"evaluator.win_rate.prompts={file}"])
    (choice,) = cell.choices("evaluator")
    (problem,) = WinRate.check(choice.config, cell, None)
    assert "every duel would be a draw" in str(problem)
    missing = compose(["evaluator=[win_rate]", f"evaluator.win_rate.prompts={tmp_path / 'none.json'}"])
    (choice,) = missing.choices("evaluator")
    assert list(WinRate.check(choice.config, missing, None))


def rows(file: Path, *found: dict[str, Any]) -> str:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found))
    return str(file)


def test_files_may_differ_in_order_names_of_keys_and_ends_of_lines(tmp_path: Path) -> None:
    ours = rows(
        tmp_path / "a.jsonl",
        {"instruction": "One\u2028line", "output": "long answer"},
        {"instruction": "Sum", "input": "1 2", "output": "3"},
        {"instruction": "Hi\r\nyou ", "output": ""},
    )
    theirs = rows(
        tmp_path / "b.ndjson",
        {"prompt": [{"role": "user", "content": "Hi\nyou"}], "response": "said"},
        {"question": "never asked", "answer": "x"},
        {"question": "Sum\n1 2", "answer": 30},
        {"prompt": "One\u2028line", "completion": [{"role": "assistant", "content": "short"}]},
    )
    found, _ = evaluate(Longer(), answers=ours, baseline_answers=theirs)
    assert (found["win_rate"].value, found["win_rate"].n) == (pytest.approx(1 / 3), 3), (
        "an empty answer loses"
    )


def test_a_prompt_asked_twice_meets_its_answers_in_their_order(tmp_path: Path) -> None:
    ours = rows(tmp_path / "a.jsonl", *({"prompt": "Q", "answer": text} for text in ("aaa", "a")))
    theirs = rows(tmp_path / "b.jsonl", *({"prompt": "Q", "answer": text} for text in ("bb", "bbbb")))
    evaluator = WinRate(WinRate.Config(answers=ours, baseline_answers=theirs))
    samples = evaluator.evaluate("win_rate", subject(Longer())).samples
    assert samples is not None
    assert list(samples["win_rate"]) == [1.0, 0.0]
    assert samples["doc_hash"].is_unique, "paired tests tell the items apart by it"
    single = rows(tmp_path / "c.jsonl", {"prompt": "Q", "answer": "bb"})
    found, _ = evaluate(Longer(), answers=ours, baseline_answers=single)
    assert found["win_rate"].value == 0.5, "a single answer serves both"


def test_prompts_that_a_file_does_not_answer_are_counted(tmp_path: Path) -> None:
    ours = rows(tmp_path / "a.jsonl", *({"prompt": f"Q{i}", "answer": "a"} for i in range(4)))
    theirs = rows(tmp_path / "b.jsonl", {"prompt": "Q1", "answer": "b"}, {"prompt": "Q2"})
    with pytest.raises(DataError, match=r"answers 1 of 4 prompts; the first without an answer .*'Q0'"):
        evaluate(Longer(), answers=ours, baseline_answers=theirs)
    twice = [*({"prompt": "Q0", "answer": text} for text in "ab"), {"prompt": "Q0", "answer": "c"}]
    with pytest.raises(DataError, match="answers 2 of 3 prompts"):
        evaluate(
            Longer(),
            answers=rows(tmp_path / "c.jsonl", *twice),
            baseline_answers=rows(tmp_path / "d.jsonl", *twice[:2]),
        )


@pytest.mark.shared
def test_the_answers_of_alpaca_farm_meet(shared_data: Path) -> None:
    """252 answers of a tuned and an aligned model, whose answers are longer: length control sees it."""
    found, facts = evaluate(
        Longer(),
        answers=str(shared_data / "alpaca_farm_outputs_rlhf.json"),
        baseline_answers=str(shared_data / "alpaca_farm_outputs_sft.json"),
        max_prompts=252,
    )
    assert found["win_rate"].n == 252
    assert found["win_rate"].value > 0.8
    assert facts["longer_mean"] > 100
    assert found["length_controlled_win_rate"].value < found["win_rate"].value
