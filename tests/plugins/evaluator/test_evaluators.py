"""Evaluators against formulas, limit cases and real answers."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from composed import tiny
from harness_plugins.decoding.greedy import Greedy
from harness_plugins.evaluator.answers import Answers
from harness_plugins.evaluator.divergence import Divergence
from harness_plugins.evaluator.efficiency import Efficiency
from harness_plugins.evaluator.fertility import Fertility
from harness_plugins.evaluator.generation import Generation, distinct, distinct_over_all, repetition
from harness_plugins.evaluator.lm_eval import LmEval
from harness_plugins.evaluator.long_context import LongContext
from harness_plugins.evaluator.perplexity import Perplexity
from harness_plugins.evaluator.ruler import Ruler
from harness_plugins.evaluator.win_rate import WinRate
from harness_plugins.judge.reward_model import RewardModel
from harness_plugins.judge.rules import Rules

from harness.axes.corpus import Document, Split
from harness.axes.evaluator import Subject
from harness.axes.judge import Judge
from harness.conformance._language import WINDOW, documents, model, subject, tokenizer
from harness.data.template import Template
from harness.data.tokenization import hidden_bytes
from harness.errors import ConfigError, DataError, IncompatibleError


def values(found: Any) -> dict[str, float]:
    return {metric.metric: metric.value for metric in found.metrics}


def test_bits_per_byte_is_loss_over_bytes() -> None:
    given = subject(model=model(seed=1))
    found = Perplexity(Perplexity.Config(max_documents=5, max_bytes=100)).evaluate("perplexity", given)
    nats, size, characters = 0.0, 0, 0
    for document in [documents("test")[index * 40 // 5] for index in range(5)]:
        text = document.text[:100]
        ids = torch.tensor([[given.tokenizer.eos_token_id, *given.tokenizer.encode(text)]])
        with torch.no_grad():
            nats += float(given.model(ids, labels=ids).loss) * (ids.shape[1] - 1)
        size += len(text.encode())
        characters += len(text)
    assert values(found)["bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-5)
    assert values(found)["nats_per_character"] == pytest.approx(nats / characters, rel=1e-5)


def test_bits_per_byte_of_an_ignorant_model_is_log2_of_its_vocabulary() -> None:
    ignorant = model()
    with torch.no_grad():
        ignorant.lm_head.weight.zero_()
    found = Perplexity().evaluate("perplexity", subject(model=ignorant))
    assert values(found)["bits_per_byte"] == pytest.approx(math.log2(len(tokenizer())), rel=1e-5)


def test_perplexity_without_documents_says_what_to_do() -> None:
    with pytest.raises(IncompatibleError, match="add the stage corpus"):
        Perplexity().evaluate("perplexity", subject(documents=None))
    with pytest.raises(IncompatibleError, match=r"raise corpus\.test_share"):
        Perplexity().evaluate("perplexity", subject(documents=lambda split: []))


class Reader(torch.nn.Module):
    """Knows every token that followed the same token before: an induction head by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.config = model().config

    def forward(self, input_ids: Any, **_: Any) -> Any:
        from types import SimpleNamespace

        batch, length = input_ids.shape
        logits = torch.zeros(batch, length, len(tokenizer()))
        for row in range(batch):
            ids = input_ids[row].tolist()
            text = bytes(token if token < 256 else 0 for token in ids)
            for at in range(length):
                end = text[max(0, at - 5) : at + 1]
                seen = text.find(end, 0, at) if len(end) == 6 else -1
                if seen >= 0 and seen + 6 < length:
                    logits[row, at, ids[seen + 6]] = 50.0
        return SimpleNamespace(logits=logits, past_key_values=None)


def test_a_model_that_reads_finds_the_pass_key_at_every_depth() -> None:
    config = LongContext.Config(lengths=[200, 300], depths=[0.0, 0.5, 1.0], num_keys=1)
    found = LongContext(config).evaluate("passkey", subject(model=Reader()))
    assert len(found.samples) == 6
    blind = LongContext(config).evaluate("passkey", subject(model=model(seed=2)))
    assert values(blind)["exact_match"] == 0.0


def test_loss_by_length_and_position_equals_the_models_loss() -> None:
    given = subject(model=model(seed=1))
    evaluator = LongContext(LongContext.Config(lengths=[32, 64], num_windows=2, buckets=2))
    found = evaluator.evaluate("loss", given)
    ids = torch.tensor(evaluator.windows(given))
    with torch.no_grad():
        logits = given.model(ids[:, :-1]).logits.log_softmax(-1)
    losses = -logits.gather(2, ids[:, 1:, None])[..., 0]
    seen = values(found)
    assert seen["loss.length=64"] == pytest.approx(float(losses.mean()), rel=1e-5)
    assert seen["loss.length=32"] == pytest.approx(float(losses[:, :32].mean()), rel=1e-5)
    assert seen["loss.position=0"] == pytest.approx(float(losses[:, :32].mean()), rel=1e-5)
    assert seen["loss.position=32"] == pytest.approx(float(losses[:, 32:].mean()), rel=1e-5)


def test_lengths_beyond_all_documents_say_what_to_do() -> None:
    with pytest.raises(IncompatibleError, match="lower lengths"):
        LongContext(LongContext.Config(lengths=[10**6])).evaluate("loss", subject())


def test_diversity_and_repetition_equal_hand_counts() -> None:
    assert distinct([1, 2, 1, 2], 2) == pytest.approx(2 / 3)
    assert repetition([1, 2, 1, 2], 2) == pytest.approx(1 / 3)
    assert math.isnan(distinct([1], 2))
    # Li et al. 2016: 1-grams {1, 2, 3} of 7 tokens; bigrams {12, 21, 23} of 7 tokens.
    texts = [[1, 2, 1, 2], [1, 2, 3]]
    assert distinct_over_all(texts, 1) == pytest.approx(3 / 7)
    assert distinct_over_all(texts, 2) == pytest.approx(3 / 7)
    found = Generation(Generation.Config(max_prompts=3, max_new_tokens=4)).evaluate("generation", subject())
    names = {"loss", "distinct_1", "distinct_2", "distinct_2_per_text", "constraints_met", "speed"}
    assert names <= values(found).keys()


def test_texts_are_scored_after_the_very_tokens_they_were_drawn_from(tmp_path: Path) -> None:
    given = subject(
        model=model(seed=1), tokenizer=with_bos(), template=with_bos().chat_template, max_length=40
    )
    config = Generation.Config(prompts=prompts_file(tmp_path / "prompts.jsonl", "x" * 80), max_new_tokens=6)
    found = Generation(config).evaluate("generation", given)
    for row in found.samples.itertuples():
        text = given.tokenizer.encode(given.prompt(row.prompt), add_special_tokens=False)[-34:]
        assert given.tokenizer.bos_token_id not in text[1:], "one BOS at most"
        said = given.tokenizer.encode(row.answer, add_special_tokens=False)
        with torch.no_grad():
            logits = given.model(torch.tensor([text + said])).logits.log_softmax(-1)[0]
        losses = [-float(logits[len(text) - 1 + i, token]) for i, token in enumerate(said)]
        if len(said) == row.length:
            assert row.loss == pytest.approx(np.mean(losses), rel=1e-4)
    assert found.facts["truncated_prompts"] == 3


def with_bos() -> Any:
    """The byte tokenizer, which puts a token before every text unless told not to, as Llama's does."""
    import copy

    from tokenizers.processors import TemplateProcessing

    made = copy.deepcopy(tokenizer())
    made.bos_token = made.unk_token
    pieces = [(made.bos_token, made.bos_token_id)]
    made.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{made.bos_token} $A", special_tokens=pieces
    )
    return made


class Scripted(Greedy):
    """Answers what it was told to, whatever it is asked."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def generate(self, model: Any, input_BT: Any, mask_BT: Any, **_: Any) -> Any:
        return torch.tensor([tokenizer().encode(self.text)]).repeat(len(input_BT), 1)


def prompts_file(path: Path, more: str = "") -> str:
    rows = [
        {"prompt": f"Say {word}{more}", "answer": word, "checks": {"exact": word}}
        for word in ("yes", "no", "yes")
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def test_wins_draws_and_losses_count_one_half_and_nothing(tmp_path: Path) -> None:
    config = WinRate.Config(prompts=prompts_file(tmp_path / "prompts.jsonl"))
    found = WinRate(config).evaluate("win_rate", subject(decoding=Scripted("yes")))
    assert found.samples["win_rate"].tolist() == [0.5, 0.0, 0.5]  # against the reference answers
    other = subject(decoding=Scripted("no"))
    found = WinRate(config).evaluate("win_rate", subject(decoding=Scripted("yes"), baseline=lambda: other))
    assert found.samples["win_rate"].tolist() == [1.0, 0.0, 1.0]
    assert found.metrics[0].value == pytest.approx(2 / 3)
    assert found.metrics[0].stderr == pytest.approx(np.std([1, 0, 1], ddof=1) / 3**0.5)
    same = WinRate(config).evaluate(
        "win_rate", subject(decoding=Scripted("yes"), baseline=lambda: subject(decoding=Scripted("yes")))
    )
    assert same.metrics[0].value == 0.5
    assert same.facts["draws"] == 3


def test_a_judge_that_looks_at_the_order_only_ends_in_draws(tmp_path: Path) -> None:
    class Vain(Rules):
        def prefer(self, duels: Any) -> list[float]:
            return [1.0] * len(duels)

    config = WinRate.Config(prompts=prompts_file(tmp_path / "prompts.jsonl"))
    found = WinRate(config).evaluate("win_rate", subject(decoding=Scripted("no"), judge=Vain()))
    assert found.metrics[0].value == 0.5
    assert found.facts["orders_disagree"] == 3


class Longer(Judge):
    """Prefers the longer answer; it reads no checks."""

    name = "longer"

    def prefer(self, duels: Any) -> list[float]:
        return [float(len(duel.first) > len(duel.second)) for duel in duels]


def test_prompts_without_reference_need_a_baseline(tmp_path: Path) -> None:
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps([{"instruction": "Say hi", "input": "loudly"}]))
    with pytest.raises(DataError, match=r"set evaluator\.win_rate\.baseline"):
        WinRate(WinRate.Config(prompts=str(path))).evaluate("win_rate", subject(judge=Longer()))
    path.write_text(json.dumps([{"text": "no prompt here"}]))
    with pytest.raises(DataError, match="row 1 has no prompt"):
        WinRate(WinRate.Config(prompts=str(path))).evaluate("win_rate", subject())


@pytest.mark.shared
def test_real_alpaca_farm_answers_are_read_as_prompts_with_reference(shared_data: Path) -> None:
    config = WinRate.Config(prompts=str(shared_data / "alpaca_farm_outputs_baseline.json"), max_prompts=4)
    found = WinRate(config).evaluate("win_rate", subject(max_length=WINDOW, judge=Longer()))
    assert found.metrics[0].n == 4
    with pytest.raises(IncompatibleError, match="judge=rules needs prompts with machine-checkable"):
        WinRate(config).evaluate("win_rate", subject(max_length=WINDOW, judge=Rules()))


def test_a_reward_model_judges_by_margin() -> None:
    from harness.axes.judge import Duel

    class Length:
        def score(self, prompts: Any, answers: Any) -> torch.Tensor:
            return torch.tensor([float(len(answer)) for answer in answers])

    judge = RewardModel(RewardModel.Config(margin=1.0))
    judge.scorers = {"reward": Length()}  # type: ignore[dict-item]
    duels = [Duel(prompt="", first="aaa", second=b, checks={}) for b in ("a", "aa", "aaaaaa")]
    assert judge.prefer(duels) == [1.0, 0.5, 0.0]
    assert judge.facts() == {"judge_is_training_reward": True}
    with pytest.raises(ConfigError, match="no reward model"):
        RewardModel().prefer(duels)


def test_sizes_and_flops_equal_the_formula() -> None:
    given = subject(stored_bytes=3 << 20)
    config = Efficiency.Config(prompt_tokens=32, new_tokens=2, repeats=2)
    found = Efficiency(config).evaluate("efficiency", given)
    seen = values(found)
    weights = sum(p.numel() for p in given.model.parameters())
    buffers = sum(b.numel() * b.element_size() for b in given.model.buffers())
    assert found.facts["weight_bytes"] == 4 * weights + buffers
    assert seen["size_on_disk"] == 3.0
    matrices = sum(
        p.numel() for name, p in given.model.named_parameters() if p.ndim == 2 and "embed" not in name
    )
    attention = 4 * 2 * 4 * 8 * 32  # 4 x layers x heads x head size x length
    assert seen["flops_per_token"] == pytest.approx(2 * matrices + attention)
    assert seen["peak_memory"] >= seen["weights_in_memory"]
    assert len(found.samples) == 2
    assert seen["prefill"] > 0
    assert seen["decode"] > 0


@pytest.mark.parametrize(
    ("attention", "kib"),
    [
        ("full", 2 * 2 * 4 * 8 * 34 * 4 / 1024),  # keys and values x layers x heads x head size x tokens
        (("grouped_query", {"num_kv_heads": 2}), 2 * 2 * 2 * 8 * 34 * 4 / 1024),
        ("multi_query", 2 * 2 * 1 * 8 * 34 * 4 / 1024),
        (("multi_head_latent", {"latent_dim": 8, "rope_dim": 4}), 2 * (8 + 4) * 34 * 4 / 1024),
    ],
)
def test_the_cache_is_as_large_as_its_formula_says(attention: Any, kib: float) -> None:
    given = subject(model=tiny(attention=attention))
    found = Efficiency(Efficiency.Config(prompt_tokens=32, new_tokens=2, repeats=1)).evaluate(
        "efficiency", given
    )
    assert values(found)["cache"] == kib


def test_the_cache_of_a_recurrent_attention_does_not_grow() -> None:
    sizes = []
    for tokens in (8, 32):
        config = Efficiency.Config(prompt_tokens=tokens, new_tokens=2, repeats=1)
        given = subject(model=tiny(attention="linear"))
        sizes.append(values(Efficiency(config).evaluate("efficiency", given))["cache"])
    assert sizes[0] == sizes[1] > 0


def test_a_prompt_costs_the_logits_of_its_last_token_alone() -> None:
    given, positions = subject(), []
    given.model.lm_head.register_forward_hook(
        lambda module, inputs, out: positions.append(inputs[0].shape[1])
    )
    Efficiency(Efficiency.Config(prompt_tokens=32, new_tokens=2, repeats=1)).evaluate("efficiency", given)
    assert set(positions) == {1}


def test_speeds_are_keyed_with_the_hardware() -> None:
    assert Efficiency.surroundings(Efficiency.Config())["processors"]
    assert Perplexity.surroundings(Perplexity.Config()) == {}


def test_a_prompt_goes_through_control_tokens_and_template() -> None:
    class Marked(Rules):
        def prompt(self, text: str) -> str:
            return f"good: {text}"

    given: Subject = subject(template=tokenizer().chat_template, prompts=[Marked()])
    assert given.prompt("Say hi") == Template(tokenizer()).prompt("good: Say hi")
    assert subject().prompt("Say hi") == "Say hi"


def test_divergence_equals_sums_in_float64_and_keeps_the_reference_once(tmp_path: Path) -> None:
    asked: list[int] = []

    def reference() -> Subject:
        asked.append(1)
        return subject(model=model(seed=2))

    given = subject(
        model=model(seed=1), models={"reference": reference}, names={"reference": "key"}, cache=tmp_path
    )
    evaluator = Divergence(Divergence.Config(max_documents=3, max_tokens=20))
    found = evaluator.evaluate("divergence", given)
    again = evaluator.evaluate("divergence", given)
    assert asked == [1], "the second comparison reads what the first one kept"
    _, rows = evaluator.documents(given)
    kls, same = [], []
    for row in rows:
        with torch.no_grad():
            p, q = (
                model(seed=seed)(torch.tensor([row[:-1]])).logits[0].double().log_softmax(-1)
                for seed in (2, 1)
            )
        kls += (p.exp() * (p - q)).sum(-1).tolist()
        same += (p.argmax(-1) == q.argmax(-1)).tolist()
    for seen in (values(found), values(again)):
        assert seen["kl"] == pytest.approx(np.mean(kls), rel=1e-5)
        assert seen["kl_p99"] == pytest.approx(np.quantile(kls, 0.99), rel=1e-5)
        assert seen["agreement"] == pytest.approx(np.mean(same))


def test_a_model_does_not_diverge_from_itself() -> None:
    given = subject(model=model(seed=1), models={"reference": lambda: subject(model=model(seed=1))})
    seen = values(Divergence().evaluate("divergence", given))
    assert seen["kl"] == pytest.approx(0, abs=1e-9)
    assert seen["agreement"] == 1.0
    with pytest.raises(ConfigError, match="cell:quantizer=none"):
        Divergence().evaluate("divergence", subject())


def test_windows_with_a_stride_are_those_of_lm_eval() -> None:
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    from harness.evaluation.requests import rolling

    for length, window, stride in ((30, 8, 3), (31, 8, 8), (7, 8, 2), (100, 16, 1)):
        tokens = list(range(1, length + 1))
        expected = get_rolling_token_windows(tokens, 0, window, window - stride + 1)
        found = list(rolling(tokens, prefix=0, max_length=window, stride=stride))
        assert [list(each) for each in found] == [list(make_disjoint_window(pair)) for pair in expected]


def test_a_stride_gives_every_token_more_context() -> None:
    given = subject(model=model(seed=1))
    config = Perplexity.Config(max_documents=2, max_bytes=60, window=16, stride=1, min_bytes=40)
    found = Perplexity(config).evaluate("perplexity", given)
    nats, size = 0.0, 0
    for document in [documents("test")[index * 40 // 2] for index in range(2)]:
        ids = [given.tokenizer.eos_token_id, *given.tokenizer.encode(document.text[:60])]
        with torch.no_grad():
            for at in range(1, len(ids)):
                context = torch.tensor([ids[max(0, at - 16) : at]])
                nats -= float(given.model(context).logits[0, -1].log_softmax(-1)[ids[at]])
        size += len(document.text[:60].encode())
    assert values(found)["bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-4)


def test_ruler_scores_the_share_of_right_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    import harness_plugins.evaluator.ruler as ruler

    def first_right(given: Any, prompts: Any, **_: Any) -> Any:
        found = []
        for prompt in prompts:
            text = given.tokenizer.decode(prompt)
            number = text.partition("special numbers of ")[2].partition(" is ")[2][:5]
            found.append(given.tokenizer.encode(f" {number} and no other"))
        return found

    monkeypatch.setattr(ruler, "greedy_tokens", first_right)
    config = Ruler.Config(tasks=["several_values"], lengths=[400, 800], num_items=2)
    found = Ruler(config).evaluate("several_values", subject())
    assert values(found)["score"] == pytest.approx(1 / 3)
    assert {"score.length=400", "score.length=800"} <= values(found).keys()


def test_bytes_that_the_unknown_token_hides_cost_eight_bits_each() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    rust = Tokenizer(models.WordLevel({"[UNK]": 0, "known": 1, "words": 2}, unk_token="[UNK]"))
    rust.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=rust, unk_token="[UNK]")
    text = "known \u4e2d\u6587 words na\u00efve"
    read = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    assert hidden_bytes(tokenizer, text, read) == len("\u4e2d\u6587".encode()) + len("na\u00efve".encode())
    assert hidden_bytes(tokenizer, "known words", tokenizer("known words", return_offsets_mapping=True)) == 0


def test_answers_of_unknown_words_are_not_had_for_nothing(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    rust = Tokenizer(models.WordLevel({"[UNK]": 0, "[EOS]": 1, "say": 2}, unk_token="[UNK]"))
    rust.pre_tokenizer = pre_tokenizers.Whitespace()
    ignorant = PreTrainedTokenizerFast(tokenizer_object=rust, unk_token="[UNK]", eos_token="[EOS]")
    rows = tmp_path / "prompts.jsonl"
    rows.write_text('{"prompt": "say", "answer": "internationalisation"}\n')
    found = Answers(Answers.Config(prompts=str(rows))).evaluate("answers", subject(tokenizer=ignorant))
    assert values(found)["answer_bits_per_byte"] >= 8


def test_a_special_token_in_a_test_document_is_read_as_text() -> None:
    given = subject()
    text = "a<|eos|>b" * 200
    given.documents = lambda split: [Document(id="x", text=text, domain="x", split=Split(split))]
    windows = LongContext(LongContext.Config(lengths=[64], num_windows=1)).windows(given)
    assert tokenizer().decode(windows[0]).startswith("a<|eos|>b")
    assert tokenizer().eos_token_id not in windows[0]


def test_blanks_that_a_tokenizer_drops_cost_eight_bits_each() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    rust = Tokenizer(models.WordLevel({"[UNK]": 0, "def": 1, "f": 2, "pass": 3}, unk_token="[UNK]"))
    rust.pre_tokenizer = pre_tokenizers.Whitespace()
    splits = PreTrainedTokenizerFast(tokenizer_object=rust, unk_token="[UNK]")
    text = "\n def f\n\n    pass \n"
    assert hidden_bytes(splits, text, splits(text, return_offsets_mapping=True)) == 2 + 5 + 2
    keeps = tokenizer()  # bytes; as GPT-2's, with the blanks before a word outside its offsets
    keeps.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    read = keeps(text, return_offsets_mapping=True)
    keeps.backend_tokenizer.post_processor = None
    assert hidden_bytes(keeps, text, read) == 0


def test_a_vocabulary_without_a_script_is_not_paid_for_its_ignorance() -> None:
    """A random model whose tokenizer calls all Chinese unknown needs at least the bits that are hidden."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    rust = Tokenizer(models.WordLevel({"[UNK]": 0, "[EOS]": 1, "a": 2}, unk_token="[UNK]"))
    rust.pre_tokenizer = pre_tokenizers.Whitespace()
    ignorant = PreTrainedTokenizerFast(tokenizer_object=rust, unk_token="[UNK]", eos_token="[EOS]")
    text = "\u4f60\u597d\u4e16\u754c " * 20 + "a"
    given = subject(tokenizer=ignorant)
    given.documents = lambda split: [Document(id="zh", text=text, domain="zh", split=Split(split))]
    found = Perplexity(Perplexity.Config(max_bytes=None)).evaluate("perplexity", given)
    hidden = found.samples["hidden_bytes"].item()
    assert hidden == len(text.replace(" ", "").encode()) - 1
    assert values(found)["bits_per_byte"] >= 8 * hidden / len(text.encode())


def test_domains_are_tasks_of_their_own() -> None:
    found = [replace(document, domain="ab"[n % 2]) for n, document in enumerate(documents("test"))]
    given = subject()
    given.documents = lambda split: found
    config = Perplexity.Config(domains=["a", "b"], max_documents=None)
    assert Perplexity.tasks(config) == ("perplexity", "a", "b")
    assert Perplexity.only(config, "a") == replace(config, domains=["a"])
    assert Perplexity.only(config, "perplexity") == replace(config, domains=[])
    samples = {task: Perplexity(config).evaluate(task, given).samples for task in Perplexity.tasks(config)}
    assert sorted([*samples["a"]["prompt"], *samples["b"]["prompt"]]) == sorted(
        samples["perplexity"]["prompt"]
    )
    assert set(samples["a"]["prompt"]) == {document.id for document in found if document.domain == "a"}
    with pytest.raises(IncompatibleError, match=r"of the domain 'c'; the corpus has \['a', 'b'\]"):
        Perplexity(config).evaluate("c", given)


def test_fertility_is_tokens_over_words(tmp_path: Path) -> None:
    (tmp_path / "en.txt").write_text("two words\n\nand three more\n")
    (tmp_path / "ja.txt").write_text("\u65e5\u672c\u8a9e\n")
    config = Fertility.Config(languages=["en", "ja"], path=str(tmp_path))
    english = values(Fertility(config).evaluate("en", subject()))
    assert english == {"tokens_per_word": (9 + 14) / 5, "bytes_per_token": 1.0}
    assert values(Fertility(config).evaluate("ja", subject())) == {"bytes_per_token": 1.0}
    with pytest.raises(DataError, match=r"de\.txt does not exist"):
        Fertility(config).evaluate("de", subject())


def test_fertility_has_sentences_of_its_own() -> None:
    pytest.importorskip("spacy")
    hindi = values(Fertility().evaluate("hi", subject()))
    assert hindi["tokens_per_word"] > values(Fertility().evaluate("en", subject()))["tokens_per_word"]
    with pytest.raises(ConfigError, match=r"no sentences of 'qq'"):
        Fertility().evaluate("qq", subject())


def test_a_plan_knows_how_many_items_it_will_measure(tmp_path: Path) -> None:
    config = LmEval.Config(tasks=["recall", "gsm8k"])
    assert LmEval.num_items(config, "recall") == 200
    assert LmEval.num_items(config, "gsm8k") is None
    assert LmEval.num_items(LmEval.Config(tasks=["recall"], limit=12), "recall") == 12
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"question": "1?"}\n{"question": "2?"}\n')
    local = LmEval.Config(tasks=["gsm8k"], data_files={"gsm8k": {"test": str(rows)}})
    assert LmEval.num_items(local, "gsm8k") == 2
    assert Ruler.num_items(Ruler.Config(lengths=[64, 128], depths=[0.5], num_items=3), "single_needle") == 6
