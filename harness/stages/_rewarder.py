"""The reward that samples are scored by, and the model it reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.errors import IncompatibleError

if TYPE_CHECKING:
    from harness.axes.reward import AnswerScorer, Reward
    from harness.stage import Work


def rewarder(work: Work) -> tuple[Reward, AnswerScorer | None]:
    """The chosen reward and the model it reads, if any.

    Raises: IncompatibleError where none is chosen or a learned one was not trained
    """
    from harness.model.scorer import ModelScorer, load_scorer

    choice = work.choices.get("reward")
    if choice is None or isinstance(choice, tuple):
        raise IncompatibleError(
            "the alignment method learns from rewards; choose reward=rules, pairwise, ensemble or judge"
        )
    method: Reward = choice.build()
    named = work.inputs.get("reward.model")
    if named is not None:
        label = getattr(method.config, "label", "")
        return method, load_scorer(named, work.load, device=work.device, label=label)
    if method.reads_language_model:
        from harness.model.artifact import open_model

        loaded = open_model(work)
        loaded.model.requires_grad_(False)
        return method, ModelScorer(loaded)
    if not method.trains:
        return method, None
    if "reward" not in work.inputs:
        raise IncompatibleError(f"reward={method.name} is trained: put the stage reward before align")
    return method, load_scorer(work.inputs["reward"], work.load, device=work.device)
