"""Our LM against lm-eval's own `hf` model on the same random model, and the scoring engine's facts."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from harness.conformance._language import model, subject, tokenizer
from harness.errors import TaskError
from harness.evaluation.lm import SubjectLM
from harness.evaluation.requests import ScoreRequest, rolling
from harness.evaluation.scoring import LikelihoodScorer

TEXT = "the parser reads every option from a file and returns the value of each name in order, twice if asked"


def requests(kind: str, arguments: list[tuple[Any, ...]]) -> list[Instance]:
    return [
        Instance(request_type=kind, doc={}, arguments=args, idx=index)  # type: ignore[arg-type]
        for index, args in enumerate(arguments)
    ]


def both(max_length: int = 512) -> tuple[SubjectLM, HFLM]:
    made = model(seed=1)
    theirs = HFLM(pretrained=made, tokenizer=tokenizer(), batch_size=8, max_length=max_length, device="cpu")
    return SubjectLM(subject(model=made, max_length=max_length)), theirs


def choices(documents: int, *, seed: int = 0) -> list[tuple[str, str]]:
    rng = random.Random(seed)
    words = TEXT.split()
    pairs = []
    for _ in range(documents):
        context = " ".join(rng.choices(words, k=rng.randint(1, 30)))
        pairs += [(context, " " + " ".join(rng.choices(words, k=rng.randint(1, 4)))) for _ in range(3)]
        pairs.append((context, "s"))  # one token
    return pairs


@pytest.mark.parametrize("max_length", [512, 64])
def test_loglikelihoods_equal_those_of_lm_evals_hf_model(max_length: int) -> None:
    ours, theirs = both(max_length)
    pairs = [*choices(12), ("", " the parser"), ("the parser ", "reads")]
    mine = ours.loglikelihood(requests("loglikelihood", pairs))
    other = theirs.loglikelihood(requests("loglikelihood", pairs), disable_tqdm=True)
    for (a, greedy_a), (b, greedy_b) in zip(mine, other, strict=True):
        assert a == pytest.approx(b, abs=2e-4)
        assert greedy_a == bool(greedy_b)
    assert ours.facts["shared_prefix"] is True
    assert ours.facts["saved_tokens"] > 0
    assert (ours.facts["truncated_contexts"] > 0) == (max_length == 64)


@pytest.mark.parametrize("max_length", [512, 48])
def test_rolling_loglikelihoods_equal_those_of_lm_evals_hf_model(max_length: int) -> None:
    ours, theirs = both(max_length)
    texts = [(TEXT,), (TEXT[:7],), (TEXT * 3,), (TEXT[: max_length + 1],)]
    mine = ours.loglikelihood_rolling(requests("loglikelihood_rolling", texts))
    other = theirs.loglikelihood_rolling(requests("loglikelihood_rolling", texts), disable_tqdm=True)
    assert mine == pytest.approx(list(other), rel=1e-5)


def test_generated_texts_equal_those_of_lm_evals_hf_model() -> None:
    ours, theirs = both(128)
    options = {"until": ["e"], "max_gen_toks": 12, "do_sample": False}
    free = {"until": [], "max_gen_toks": 5, "do_sample": False}
    prompts = [TEXT[:n] for n in (3, 20, 60, 40)]
    calls: list[tuple[Any, ...]] = [(prompt, dict(options)) for prompt in prompts]
    calls += [(prompt, dict(free)) for prompt in prompts]
    mine = ours.generate_until(requests("generate_until", calls))
    other = theirs.generate_until(requests("generate_until", calls), disable_tqdm=True)
    assert mine == other
    assert all("e" not in text for text in mine[:4])


def test_beams_end_at_stop_strings_as_transformers_has_it() -> None:
    """Of every prompt alone; lm-eval's `hf` lets a beam run on until all beams of its batch have ended."""
    ours, theirs = both(128)
    options = {"until": ["e", "r "], "max_gen_toks": 10, "num_beams": 3}
    prompts = [TEXT[:n] for n in (3, 20, 60, 40)]
    mine = ours.generate_until(requests("generate_until", [(prompt, dict(options)) for prompt in prompts]))
    for prompt, text in zip(prompts, mine, strict=True):
        ids = torch.tensor([ours.tok_encode(prompt)])
        whole = theirs.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=10,
            num_beams=3,
            do_sample=False,
            stop_strings=["e", "r "],
            tokenizer=ours.tokenizer,
        )
        found = ours.tok_decode(whole[0, ids.shape[1] :].tolist())
        assert text == min((found.partition(stop)[0] for stop in ("e", "r ")), key=len)


def test_chat_templates_are_the_tokenizers() -> None:
    ours, theirs = both()
    history = [{"role": "user", "content": "Say: value"}]
    assert ours.apply_chat_template(history) == theirs.apply_chat_template(history)


def test_choices_after_a_template_are_encoded_as_training_encodes_answers() -> None:
    from harness.axes.instruction import Conversation, Role, Turn
    from harness.data.template import Template

    lm = SubjectLM(subject(template=tokenizer().chat_template), as_trained=True)
    prompt = lm.apply_chat_template([{"role": "user", "content": "Say: value"}])
    context, answer = lm._encode_pair(prompt, "value")
    turns = (Turn(role=Role.user, text="Say: value"), Turn(role=Role.assistant, text="value"))
    trained, _ = Template(tokenizer()).encode(Conversation(id="", turns=turns, source=""))
    assert trained.tolist()[: len(context) + len(answer)] == context + answer
    assert len(answer) == len(" value")


def test_chat_choices_equal_those_of_lm_evals_hf_model() -> None:
    made = model(seed=1)
    theirs = HFLM(pretrained=made, tokenizer=tokenizer(), batch_size=8, max_length=512, device="cpu")
    ours = SubjectLM(subject(model=made, template=tokenizer().chat_template))
    prompt = ours.apply_chat_template([{"role": "user", "content": "Say: value"}])
    pairs = [(prompt, word) for word in ("value", " value", "the parser", "x")]
    mine = ours.loglikelihood(requests("loglikelihood", pairs))
    other = theirs.loglikelihood(requests("loglikelihood", pairs), disable_tqdm=True)
    assert [total for total, _ in mine] == pytest.approx([total for total, _ in other], abs=2e-4)


def merging() -> Any:
    """A tokenizer with the one merge that makes 'world' of 'wor' + 'ld'."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = [*"helowrd", "Ġ", "wo", "wor", "ld", "world", "<eos>"]
    merges = [("w", "o"), ("wo", "r"), ("l", "d"), ("wor", "ld")]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>")


def test_a_token_that_spans_context_and_continuation_is_scored_alone_and_counted() -> None:
    lm = SubjectLM(subject(tokenizer=merging()))
    ids = lm.tokenizer.get_vocab()
    context, scored = lm._encode_pair("hello wor", "ld")
    assert scored == [ids["ld"]]
    assert context == lm.tok_encode("hello wor")
    assert lm.facts["spanning_continuations"] == 1
    (total, _), (apart, _) = lm.loglikelihood(
        requests("loglikelihood", [("hello wor", "ld"), ("hello wor", " he")])
    )
    assert total < 0
    assert apart < 0
    assert lm.facts["spanning_continuations"] == 2
    with pytest.raises(TaskError, match="is empty, or of what the tokenizer leaves out: nothing to score"):
        lm._encode_pair("hello", "")


def test_windows_predict_every_token_once() -> None:
    for length in (1, 7, 8, 9, 30):
        tokens = list(range(100, 100 + length))
        windows = list(rolling(tokens, prefix=1, max_length=8))
        assert [token for window in windows for token in window.continuation] == tokens
        assert all(len(w.context) + len(w.continuation) <= 9 for w in windows)


def test_a_cache_that_is_not_exact_is_noticed_and_not_used() -> None:
    class Forgetful(torch.nn.Module):
        """Sees nothing of what the cache holds."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = model(seed=1)

        def forward(self, input_ids: Any, past_key_values: Any = None, **options: Any) -> Any:
            out = self.inner(input_ids=input_ids, **options)
            out.past_key_values = past_key_values if past_key_values is not None else out.past_key_values
            return out

    context = [ord(letter) for letter in TEXT[:60]]
    asked = [ScoreRequest(context, [70 + k, 71, 72]) for k in range(4)]
    scorer = LikelihoodScorer(model=Forgetful(), max_length=512)
    plain = LikelihoodScorer(model=model(seed=1), max_length=512, share_prefix=False)
    found, expected = scorer.score(asked), plain.score(asked)
    assert [s.total for s in found] == pytest.approx([s.total for s in expected], abs=1e-5)
    assert scorer.facts["shared_prefix"] is False
    assert "differ" in scorer.facts["shared_prefix_refused"]


def test_requests_that_cannot_be_scored_say_why() -> None:
    scorer = LikelihoodScorer(model=model(), max_length=8)
    with pytest.raises(TaskError, match="does not fit a window of 8"):
        scorer.score([ScoreRequest([1], list(range(9)))])
    with pytest.raises(TaskError, match="at least one token"):
        scorer.score([ScoreRequest([], [1])])
