"""Prefix decoders and encoder-decoders are scored as trained: the context is the prefix or the source."""

import pytest
import torch
from composed import tiny

from harness.evaluation.scoring import LikelihoodScorer, ScoreRequest

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


@pytest.mark.parametrize(("name", "layers"), [("prefix_decoder", 0), ("encoder_decoder", 2)])
@torch.no_grad()
def test_scores_condition_on_the_context(name, layers):
    model = tiny(architecture=name, shape={"num_encoder_layers": layers})
    scores = LikelihoodScorer(model=model, max_length=64).score(REQUESTS)
    for score, request in zip(scores, REQUESTS, strict=True):
        torch.testing.assert_close(score.log_probs.cpu(), _wanted(model, *request), rtol=1e-4, atol=1e-4)
