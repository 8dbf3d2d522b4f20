"""Prefix decoders and encoder-decoders read a prompt as prefix or source in training, scoring, generation."""

import pytest
import torch
from composed import tiny

from harness.compose import compose
from harness.data.template import IGNORED
from harness.errors import IncompatibleError
from harness.evaluation.requests import ScoreRequest
from harness.evaluation.scoring import LikelihoodScorer
from harness.model.conditioning import conditioned
from harness.plan.problems import problems
from harness.registry.known import registry
from harness.stages._log_probs import answers_log_probs
from harness.stages._rollout_loss import forward
from harness.training.losses import conversation_loss

CONDITIONAL = pytest.mark.parametrize(("name", "layers"), [("prefix_decoder", 0), ("encoder_decoder", 2)])
REQUESTS = [
    ScoreRequest([5, 6, 7, 8], [9, 10, 11]),
    ScoreRequest([5, 6, 7, 8], [12]),
    ScoreRequest([1, 2], [3, 4, 5, 6, 7]),
]


def _wanted(model, context, continuation):
    if model.model.architecture.has_encoder():
        inputs = {"input_ids": torch.tensor([[context[-1], *continuation[:-1]]])}
        inputs["encoder_input_ids"] = torch.tensor([context])
    else:
        inputs = {"input_ids": torch.tensor([[*context, *continuation[:-1]]])}
        inputs["prefix_length"] = torch.tensor([len(context)])
    logits = model(**inputs).logits[0, -len(continuation) :]
    return logits.log_softmax(-1).gather(1, torch.tensor(continuation)[:, None])[:, 0]


@CONDITIONAL
@torch.no_grad()
def test_scores_condition_on_the_context(name, layers):
    model = tiny(architecture=name, shape={"num_encoder_layers": layers})
    scores = LikelihoodScorer(model=model, max_length=64).score(REQUESTS)
    for score, request in zip(scores, REQUESTS, strict=True):
        torch.testing.assert_close(score.log_probs.cpu(), _wanted(model, *request), rtol=1e-4, atol=1e-4)


PROMPT, ANSWER = [5, 6, 7, 8], [9, 10, 11]


def _batch(*rows):
    """Conversations as the instruct stage pads them."""
    width = max(len(prompt) + len(answer) - 1 for prompt, answer in rows)
    ids, mask = (
        torch.zeros(len(rows), width, dtype=torch.long),
        torch.zeros(len(rows), width, dtype=torch.long),
    )
    labels = torch.full((len(rows), width), IGNORED)
    for row, (prompt, answer) in enumerate(rows):
        tokens = torch.tensor([*prompt, *answer])
        end = len(tokens) - 1
        ids[row, :end], mask[row, :end] = tokens[:-1], 1
        labels[row, len(prompt) - 1 : end] = tokens[len(prompt) :]
    return {"input_ids": ids, "labels_BT": labels, "attention_mask": mask}


@CONDITIONAL
@pytest.mark.parametrize("mixed", [False, True])
@torch.no_grad()
def test_answers_are_trained_as_generation_reads_their_prompts(name, layers, mixed):
    """The loss is the negative log-likelihood of answers given a prefix or a source, whatever the padding."""
    model = tiny(architecture=name, shape={"num_encoder_layers": layers})
    rows = [(PROMPT, ANSWER), ([1, 2], [3, 4, 5, 6, 7]), ([3, 1, 2, 9, 9, 4], [8])]
    batch = _batch(*rows)
    if mixed:  # what pretraining windows in the same batch bring along
        batch["document_ids"] = 1 - batch["attention_mask"]
    total = conversation_loss(model, batch).total
    torch.testing.assert_close(total, -sum(_wanted(model, *row).sum() for row in rows), rtol=1e-4, atol=1e-4)


@CONDITIONAL
@torch.no_grad()
def test_rewards_and_preferences_read_prompts_as_training_does(name, layers):
    model = tiny(architecture=name, shape={"num_encoder_layers": layers})
    batch = _batch((PROMPT, ANSWER))
    parts = {f"chosen_{key}": value for key, value in batch.items()}
    wanted = _wanted(model, PROMPT, ANSWER).sum()
    torch.testing.assert_close(answers_log_probs(model, parts, ["chosen"])["chosen"].sum()[0], wanted)
    torch.testing.assert_close(forward(model, batch, values=False, temperature=1.0)[0].sum()[0], wanted)


@CONDITIONAL
@torch.no_grad()
def test_generation_continues_what_training_reads(name, layers):
    """The first token of a greedy answer is the likeliest one under the training loss's reading."""
    model = tiny(architecture=name, shape={"num_encoder_layers": layers})
    ids, mask = torch.tensor([[0, 0, 1, 2], PROMPT]), torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    answers = model.generate(ids, attention_mask=mask, max_new_tokens=3, min_new_tokens=3, do_sample=False)[
        :, 4:
    ]
    for prompt, answer in zip(([1, 2], PROMPT), answers.tolist(), strict=True):
        batch = _batch((prompt, answer))
        inputs = conditioned(model, **batch)
        likeliest = model(**inputs).logits[0].argmax(-1)
        assert likeliest[len(prompt) - 1 :].tolist() == answer


def test_a_decoder_with_a_start_token_begins_with_it_everywhere():
    """An imported T5 states the token; training, scoring and generation agree on it."""
    model = tiny(architecture="encoder_decoder", shape={"num_encoder_layers": 2})
    model.generation_config.decoder_start_token_id = 13
    inputs = conditioned(model, **_batch((PROMPT, ANSWER)))
    assert inputs["input_ids"][0, len(PROMPT) - 1 :].tolist() == [13, *ANSWER[:-1]]
    assert inputs["encoder_input_ids"][0, : len(PROMPT)].tolist() == PROMPT
    with torch.no_grad():
        trained = conversation_loss(model, _batch((PROMPT, ANSWER))).total
        (scored,) = LikelihoodScorer(model=model, max_length=64).score([ScoreRequest(PROMPT, ANSWER)])
        answer = model.generate(torch.tensor([PROMPT]), max_new_tokens=1, do_sample=False)[0, len(PROMPT) :]
        first = model(**inputs).logits[0, len(PROMPT) - 1].argmax()
    assert scored.total == pytest.approx(-float(trained), abs=1e-4)
    assert answer.tolist() == [int(first)]


@CONDITIONAL
def test_packed_conversations_are_refused(name, layers):
    model = tiny(architecture=name, shape={"num_encoder_layers": layers})
    packed = {**_batch((PROMPT, ANSWER)), "document_ids": torch.zeros(1, 6, dtype=torch.long)}
    del packed["attention_mask"]
    with pytest.raises(IncompatibleError, match="instruction_strategy=proportional"):
        conversation_loss(model, packed)


GREEDY = {
    "contrastive_search": {"alpha": 0.0},
    "contrastive_decoding": {"alpha": 1.0},
    "diverse_beam": {"num_beams": 2, "num_groups": 2, "diversity": 0.0, "length_penalty": 0.0},
    "dola": {"alpha": 1.0, "repetition_penalty": 1.0},
}
"""Options under which a strategy takes the likeliest token at every step."""


@CONDITIONAL
@pytest.mark.parametrize("strategy", GREEDY)
def test_strategies_that_step_by_themselves_read_prompts_as_generation_does(name, layers, strategy):
    """In a batch padded on the left, whose rows are also read alone."""
    models = [tiny(architecture=name, shape={"num_encoder_layers": layers}, seed=seed) for seed in (0, 1)]
    ids, mask = torch.tensor([[0, 0, 1, 2], PROMPT]), torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    method, greedy = registry().get("decoding", strategy), registry().get("decoding", "greedy")()
    decoding = method(method.Config(**GREEDY[strategy]))
    decoding.models = {"amateur": models[1]}
    given = {"max_new_tokens": 6, "seeds": [0, 0]}
    wanted = greedy.generate(models[0], ids, mask, **given)
    assert decoding.generate(models[0], ids, mask, **given).tolist() == wanted.tolist()


@CONDITIONAL
def test_a_draft_is_not_asked_where_prompts_are_a_prefix_or_a_source(name, layers):
    model = tiny(architecture=name, shape={"num_encoder_layers": layers})
    method = registry().get("decoding", "speculative")
    decoding = method(method.Config(draft="cell:seed=1"))
    decoding.models = {"draft": model}
    ids = torch.tensor([PROMPT])
    with pytest.raises(IncompatibleError, match="a model with a prefix or an encoder does not"):
        decoding.generate(model, ids, torch.ones_like(ids), max_new_tokens=2, seeds=[0])
    encoder = ["model.num_encoder_layers=2"] if layers else []
    asked = [f"architecture={name}", *encoder, "decoding=speculative", "decoding.draft='cell:seed=1'"]
    assert any("reads prompts as they stand" in str(problem) for problem in problems(compose(asked)))
