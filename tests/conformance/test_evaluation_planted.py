"""Planted bugs: the suites of decoding, evaluator, judge and tracker must fail on each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from told import told

from harness.axes.decoding import Decoding
from harness.axes.evaluator import Evaluation, Evaluator, Metric, Subject
from harness.axes.judge import Duel, Judge
from harness.axes.tracker import Tracker
from harness.conformance import test_decoding, test_evaluator, test_judge, test_tracker
from harness.method import Method
from harness.ops.searching import search


class Correct(Decoding):
    """Greedy by hand."""

    name = "correct"

    def generate(
        self,
        model: Any,
        input_BT: torch.Tensor,
        mask_BT: torch.Tensor,
        *,
        max_new_tokens: int,
        seeds: Sequence[int],
    ) -> torch.Tensor:
        options = {"do_sample": False}
        return search(model, input_BT, mask_BT, options=options, max_new_tokens=max_new_tokens)


class Echo(Correct):
    """Returns the prompt too."""

    name = "echo"

    def generate(self, model: Any, input_BT: Any, mask_BT: Any, **options: Any) -> torch.Tensor:
        return torch.cat([input_BT, super().generate(model, input_BT, mask_BT, **options)], dim=1)


class Unseeded(Correct):
    """Draws from the global random state."""

    name = "unseeded"

    def generate(self, model: Any, input_BT: Any, mask_BT: Any, **options: Any) -> torch.Tensor:
        return torch.randint(256, (len(input_BT), options["max_new_tokens"]))


class Maskless(Correct):
    """Reads padding."""

    name = "maskless"

    def generate(self, model: Any, input_BT: Any, mask_BT: Any, **options: Any) -> torch.Tensor:
        return super().generate(model, input_BT, torch.ones_like(mask_BT), **options)


class Endless(Correct):
    """Goes on after the end."""

    name = "endless"

    def generate(self, model: Any, input_BT: Any, mask_BT: Any, **options: Any) -> torch.Tensor:
        new_BS = super().generate(model, input_BT, mask_BT, **options)
        return torch.where(new_BS == test_decoding.PAD, 65, new_BS)


class Leaky(Correct):
    """Leaves options to the checkpoint."""

    name = "leaky"

    def generate(
        self, model: Any, input_BT: Any, mask_BT: Any, *, max_new_tokens: int, seeds: Any
    ) -> torch.Tensor:
        out = model.generate(input_ids=input_BT, attention_mask=mask_BT, max_new_tokens=max_new_tokens)
        return out[:, input_BT.shape[1] :]  # type: ignore[no-any-return]


class FirstEnd(Correct):
    """Stops at one end token alone."""

    name = "first_end"

    def generate(self, model: Any, input_BT: Any, mask_BT: Any, **options: Any) -> torch.Tensor:
        said = model.generation_config.eos_token_id
        model.generation_config.eos_token_id = said[0] if isinstance(said, list) else said
        return super().generate(model, input_BT, mask_BT, **options)


class Alike(Correct):
    """Draws the same for every second row."""

    name = "alike"

    def generate(self, model: Any, input_BT: Any, mask_BT: Any, **options: Any) -> torch.Tensor:
        seeds = torch.tensor([seed % 1000 for seed in options["seeds"]])
        new_BS = torch.arange(options["max_new_tokens"])[None] + seeds[:, None]
        return new_BS[torch.arange(len(seeds)) % 4 // 2] % 256


class OneSeed(Correct):
    """Draws, whatever seed it is given."""

    name = "one_seed"

    def generate(self, model: Any, input_BT: Any, mask_BT: Any, **options: Any) -> torch.Tensor:
        fixed = torch.Generator().manual_seed(7)
        row = torch.randint(256, (1, options["max_new_tokens"]), generator=fixed)
        return row.expand(len(input_BT), -1)


class FixedStreams(Decoding):
    """Samples as the built-in ones do, from streams of its own choice."""

    name = "fixed_streams"

    def options(self) -> dict[str, Any]:
        return {"do_sample": True, "num_beams": 1, "top_k": 0}

    def generate(self, model: Any, input_BT: Any, mask_BT: Any, **options: Any) -> torch.Tensor:
        return super().generate(model, input_BT, mask_BT, **{**options, "seeds": [0] * len(input_BT)})


class Spoiler(Correct):
    """Changes a weight."""

    name = "spoiler"

    def generate(self, model: Any, input_BT: Any, mask_BT: Any, **options: Any) -> torch.Tensor:
        with torch.no_grad():
            model.lm_head.weight.add_(1e-3)
        return super().generate(model, input_BT, mask_BT, **options)


@pytest.mark.parametrize(
    ("test", "bug"),
    [
        (test_decoding.test_only_new_tokens_come_back, Echo),
        (test_decoding.test_one_seed_draws_the_same_tokens_again, Unseeded),
        (test_decoding.test_the_global_random_state_is_left_as_it_was, Unseeded),
        (test_decoding.test_padding_on_the_left_changes_nothing, Maskless),
        (test_decoding.test_nothing_but_padding_follows_the_end, Endless),
        (test_decoding.test_the_model_is_left_as_it_was, Spoiler),
        (test_decoding.test_a_checkpoint_contributes_nothing_but_its_stops, Leaky),
        (test_decoding.test_every_end_token_ends, FirstEnd),
        (test_decoding.test_rows_of_one_prompt_draw_apart, Alike),
    ],
)
def test_decoding_suite_fails_on(test: Callable[..., None], bug: type[Method]) -> None:
    test(Correct)
    with told():
        test(bug)


def test_a_seed_that_is_ignored_is_named() -> None:
    with told("seed"):
        test_decoding.test_one_seed_draws_the_same_tokens_again(Unseeded)
    with told("draw from generators made of `seeds` alone"):
        test_decoding.test_the_global_random_state_is_left_as_it_was(Unseeded)
    with told("eight seeds draw the same tokens"):
        test_decoding.test_rows_of_one_prompt_draw_apart(OneSeed)
    with told("eight seeds draw the same tokens"):
        test_decoding.test_rows_of_one_prompt_draw_apart(FixedStreams)


class Counts(Evaluator):
    """Counts documents; correct."""

    name = "counts"
    rows = 3

    def evaluate(self, task: str, subject: Subject) -> Evaluation:
        metric = Metric(task=task, metric="documents", value=self.value(subject), n=self.rows)
        return Evaluation(metrics=[metric], samples=self.samples(task))

    def value(self, subject: Subject) -> float:
        return 3.0

    def samples(self, task: str) -> pd.DataFrame:
        return pd.DataFrame({"task": task, "doc_hash": ["a", "b", "c"]})


class NotANumber(Counts):
    """Yields NaN."""

    name = "nan"

    def value(self, subject: Subject) -> float:
        return float("nan")


class Moody(Counts):
    """Draws its number from the global random state."""

    name = "moody"

    def value(self, subject: Subject) -> float:
        return float(torch.rand(()))


class Trainer(Counts):
    """Trains the model and leaves it in training mode."""

    name = "trainer"

    def value(self, subject: Subject) -> float:
        subject.model.train()
        with torch.no_grad():
            subject.model.lm_head.weight.mul_(2)
        return 1.0


class Anonymous(Counts):
    """Keeps no document's hash."""

    name = "anonymous"

    def samples(self, task: str) -> pd.DataFrame:
        return pd.DataFrame({"task": [task]})


class OneHash(Counts):
    """Gives all items one hash."""

    name = "one_hash"

    def samples(self, task: str) -> pd.DataFrame:
        return super().samples(task).assign(doc_hash="x")


class Sure(Counts):
    """States no error, although its items differ."""

    name = "sure"

    def evaluate(self, task: str, subject: Subject) -> Evaluation:
        metric = Metric(task=task, metric="documents", value=3.0, stderr=0.0, n=self.rows)
        samples = self.samples(task).assign(documents=[1.0, 2.0, 6.0])
        return Evaluation(metrics=[metric], samples=samples)


class Means(Counts):
    """A mean over items; correct."""

    name = "means"
    count, factor, spread = 3, 1.0, 1.0

    def evaluate(self, task: str, subject: Subject) -> Evaluation:
        samples = self.samples(task).assign(documents=[1.0, 2.0, 6.0])
        error = float(samples["documents"].std() / 3**0.5) * self.spread
        metric = Metric(task=task, metric="documents", value=3.0 * self.factor, stderr=error, n=self.count)
        return Evaluation(metrics=[metric], samples=samples)


class CountsTokens(Means):
    """Gives the number of tokens for that of items."""

    name = "counts_tokens"
    count = 64


class Summed(Means):
    """Gives a sum for a mean."""

    name = "summed"
    factor = 3.0


class Deviation(Means):
    """Gives the items' standard deviation for the mean's error."""

    name = "deviation"
    spread = 3**0.5 * 1.2


@pytest.mark.parametrize(
    ("bug", "words"),
    [
        (CountsTokens, "documents says n=64, and 3 rows of samples hold it"),
        (Summed, "documents=9, and its items lie between 1 and 6"),
        (Deviation, "documents has a standard error of 3.1749; that of its items' mean is 1.52753"),
    ],
)
def test_a_number_that_its_items_deny_is_named(bug: type[Evaluator], words: str) -> None:
    test_evaluator.test_a_number_follows_from_its_items(Means)
    with told(words):
        test_evaluator.test_a_number_follows_from_its_items(bug)


class Unstorable(Counts):
    """Keeps what no file can hold."""

    name = "unstorable"

    def samples(self, task: str) -> pd.DataFrame:
        return pd.DataFrame({"task": task, "doc_hash": ["a", "b"], "what": [object(), "text"]})


class Twins(Counts):
    """Two tasks of one name."""

    name = "twins"

    @classmethod
    def tasks(cls, config: Any) -> Sequence[str]:
        return ("one", "one")


class Forgetful(Counts):
    """Loses its task when asked for one."""

    name = "forgetful"

    @classmethod
    def tasks(cls, config: Any) -> Sequence[str]:
        return ("one", "two") if isinstance(config, cls.Config) else ()

    @classmethod
    def only(cls, config: Any, task: str) -> Any:
        return None


@pytest.mark.parametrize(
    ("test", "bug", "error"),
    [
        (test_evaluator.test_metrics_can_be_printed_and_tested, NotANumber, AssertionError),
        (test_evaluator.test_the_same_model_gets_the_same_numbers, Moody, AssertionError),
        (test_evaluator.test_the_global_random_state_is_left_as_it_was, Moody, AssertionError),
        (test_evaluator.test_the_model_is_left_as_it_was, Trainer, AssertionError),
        (test_evaluator.test_samples_are_kept_by_document, Anonymous, AssertionError),
        (test_evaluator.test_samples_are_kept_by_document, OneHash, AssertionError),
        (test_evaluator.test_an_error_is_stated_where_items_differ, Sure, AssertionError),
        (test_evaluator.test_samples_survive_storage, Unstorable, Exception),
        (test_evaluator.test_every_task_has_a_name_of_its_own, Twins, AssertionError),
        (test_evaluator.test_one_task_depends_on_no_other, Forgetful, AssertionError),
    ],
)
def test_evaluator_suite_fails_on(
    test: Callable[..., None], bug: type[Method], error: type[Exception]
) -> None:
    test(Counts)
    with told() if error is AssertionError else pytest.raises(error):
        test(bug)


class Longer(Judge):
    """Prefers the longer answer; correct."""

    name = "longer"

    def prefer(self, duels: Sequence[Duel]) -> list[float]:
        return [self.one(len(duel.first), len(duel.second)) for duel in duels]

    def one(self, first: int, second: int) -> float:
        return 0.5 if first == second else float(first > second)


class First(Longer):
    """Prefers the first answer on a tie."""

    name = "first"

    def one(self, first: int, second: int) -> float:
        return float(first >= second)


class Percent(Longer):
    """Speaks in percent."""

    name = "percent"

    def one(self, first: int, second: int) -> float:
        return 100 * super().one(first, second)


class Undecided(Longer):
    """Always a draw."""

    name = "undecided"

    def one(self, first: int, second: int) -> float:
        return 0.5


class Impatient(Longer):
    """Answers where nothing was asked."""

    name = "impatient"

    def prefer(self, duels: Sequence[Duel]) -> list[float]:
        return super().prefer(duels) or [0.5]


@pytest.mark.parametrize(
    ("test", "bug"),
    [
        (test_judge.test_equal_answers_draw, First),
        (test_judge.test_swapped_answers_swap_the_verdict, First),
        (test_judge.test_every_duel_gets_a_verdict, Percent),
        (test_judge.test_it_tells_answers_apart, Undecided),
        (test_judge.test_no_duel_is_no_error, Impatient),
    ],
)
def test_judge_suite_fails_on(test: Callable[..., None], bug: type[Method]) -> None:
    test(Longer)
    with told():
        test(bug)


class Diary(Tracker):
    """Writes one line a run; correct."""

    name = "diary"

    def cell_finished(self, run: dict[str, Any], record: dict[str, Any]) -> None:
        path = Path(run["directory"])
        path.mkdir(parents=True, exist_ok=True)
        (path / "diary").write_text("done")


class Litterer(Diary):
    """Writes where it stands."""

    name = "litterer"

    def run_started(self, run: dict[str, Any]) -> None:
        Path("litter").write_text("x")


class Vandal(Diary):
    """Empties the record."""

    name = "vandal"

    def cell_finished(self, run: dict[str, Any], record: dict[str, Any]) -> None:
        super().cell_finished(run, record)
        record["metrics"].clear()


class Hasty(Diary):
    """Counts on a stage."""

    name = "hasty"

    def stage_finished(self, run: dict[str, Any], stage: str, facts: dict[str, Any]) -> None:
        self.stage = stage

    def cell_finished(self, run: dict[str, Any], record: dict[str, Any]) -> None:
        super().cell_finished(run, record)
        assert self.stage


@pytest.mark.parametrize(
    ("test", "bug", "error"),
    [
        (test_tracker.test_it_writes_into_the_records_directory_only, Litterer, AssertionError),
        (test_tracker.test_what_it_is_told_stays_as_it_was, Vandal, AssertionError),
        (test_tracker.test_a_cell_that_ends_before_its_first_stage_is_no_error, Hasty, AttributeError),
    ],
)
def test_tracker_suite_fails_on(test: Callable[..., None], bug: type[Method], error: type[Exception]) -> None:
    test(Diary)
    with told() if error is AssertionError else pytest.raises(error):
        test(bug)
