"""What every decoding method must do."""

from __future__ import annotations

import dataclasses
import sys
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GenerationConfig

from harness.axes.decoding import Decoding
from harness.conformance._language import END, PAD, model
from harness.ops.drawing import uniforms
from harness.rng import draw_seed

AXIS = "decoding"
NEW = 6
LEAKS = {
    "do_sample": True, "temperature": 0.3, "top_k": 3, "top_p": 0.5, "min_p": 0.3, "typical_p": 0.4,
    "repetition_penalty": 2.0, "no_repeat_ngram_size": 1, "num_beams": 3, "length_penalty": -2.0,
    "early_stopping": True, "suppress_tokens": [10, 20], "min_new_tokens": 4, "max_length": 12,
}  # fmt: skip
"""What a checkpoint may say of generation, and no strategy may take from it."""
PROMPTS = ([72, 101, 108], [10, 20, 30, 40, 50, 60], [65, 66])


def made(method: type[Decoding]) -> Decoding:
    """An instance whose model references lead to a smaller model."""
    decoding = method()
    options = dataclasses.fields(decoding.config)
    decoding.models = {
        option.name: model(seed=7, layers=1) for option in options if option.metadata.get("model_ref")
    }
    return decoding


def batch(prompts: Any = PROMPTS) -> tuple[Tensor, Tensor]:
    """Prompts of several lengths, padded on the left."""
    width = max(map(len, prompts))
    ids_BT = torch.full((len(prompts), width), PAD)
    mask_BT = torch.zeros_like(ids_BT)
    for row, prompt in enumerate(prompts):
        ids_BT[row, width - len(prompt) :] = torch.tensor(prompt)
        mask_BT[row, width - len(prompt) :] = 1
    return ids_BT, mask_BT


def draw(method: type[Decoding], *, seed: int = 0, prompts: Any = PROMPTS, language: Any = None) -> Tensor:
    """New tokens of the tiny model."""
    ids_BT, mask_BT = batch(prompts)
    return made(method).generate(
        language or model(), ids_BT, mask_BT, max_new_tokens=NEW, seeds=seeds_of(seed, len(ids_BT))
    )


def seeds_of(seed: int, rows: int) -> list[int]:
    """A stream for every row."""
    return [draw_seed(seed=seed, prompt=row) for row in range(rows)]


def test_only_new_tokens_come_back(method: type[Decoding]) -> None:
    new_BS = draw(method)
    assert new_BS.shape[0] == len(PROMPTS), "one row a prompt"
    assert 1 <= new_BS.shape[1] <= NEW, f"at most max_new_tokens={NEW} tokens, without the prompt"
    assert int(new_BS.min()) >= 0, "a negative token id"
    assert int(new_BS.max()) < model().config.vocab_size, "a token beyond the model's vocabulary"


def test_one_seed_draws_the_same_tokens_again(method: type[Decoding]) -> None:
    first = draw(method, seed=3)
    torch.rand(5)
    assert torch.equal(first, draw(method, seed=3)), "tokens depend on `seed` alone"


def test_the_global_random_state_is_left_as_it_was(method: type[Decoding]) -> None:
    before = torch.get_rng_state()
    draw(method)
    assert torch.equal(before, torch.get_rng_state()), (
        "torch's global random state moved: draw from generators made of `seeds` alone"
    )


def test_the_model_is_left_as_it_was(method: type[Decoding]) -> None:
    language = model()
    before = {name: value.clone() for name, value in language.state_dict().items()}
    draw(method, language=language)
    assert all(torch.equal(value, before[name]) for name, value in language.state_dict().items()), (
        "weights or buffers of the model changed"
    )
    assert not language.training, "the model was left in training mode"


def test_padding_on_the_left_changes_nothing(method: type[Decoding]) -> None:
    ids_BT, mask_BT = batch()
    seeds = seeds_of(0, len(ids_BT))
    decoding, language = made(method), model()
    together = decoding.generate(language, ids_BT, mask_BT, max_new_tokens=NEW, seeds=seeds).tolist()
    for row, (prompt, seed) in enumerate(zip(PROMPTS, seeds, strict=True)):
        ids_1T, mask_1T = batch([prompt])
        alone = decoding.generate(language, ids_1T, mask_1T, max_new_tokens=NEW, seeds=[seed])[0].tolist()
        length = min(len(alone), len(together[row]))
        assert together[row][:length] == alone[:length], (
            "mask out padding, count positions without it, and draw from the row's own seed"
        )


class Chance(TorchDispatchMode):
    """Notes whether random numbers are drawn: by torch, those that fused attention could drop out by aside,
    or by the streams of `uniforms`, which are no generators of torch's.
    """

    drawn = False

    def __enter__(self) -> Chance:
        self.earlier = sys.getprofile()
        sys.setprofile(self.called)
        return super().__enter__()  # type: ignore[no-any-return, no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        sys.setprofile(self.earlier)

    def called(self, frame: FrameType, event: str, argument: Any) -> None:
        """Whoever calls it, under whatever name it was imported."""
        self.drawn |= frame.f_code is uniforms.__code__

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        drops = any(argument.name == "dropout_p" for argument in func._schema.arguments)
        self.drawn |= torch.Tag.nondeterministic_seeded in func.tags and not drops
        return func(*args, **(kwargs or {}))


def test_rows_of_one_prompt_draw_apart(method: type[Decoding]) -> None:
    """Eight answers to one prompt are all alike (it does not sample) or mostly different."""
    ids_BT, mask_BT = batch([PROMPTS[0]] * 8)
    decoding, language, seeds = made(method), model(), seeds_of(0, 8)
    with Chance() as chance:  # type: ignore[no-untyped-call]
        new_BS = decoding.generate(language, ids_BT, mask_BT, max_new_tokens=NEW, seeds=seeds)
    answers = {tuple(row) for row in new_BS.tolist()}
    assert len(answers) > 1 or not chance.drawn, (
        "eight seeds draw the same tokens: draw from generators made of `seeds`, one for each row"
    )
    assert len(answers) == 1 or len(answers) > 4, "each row has a stream of its own"


def test_a_checkpoint_contributes_nothing_but_its_stops(method: type[Decoding]) -> None:
    """Options in the model's own generation config change nothing."""
    language = model()
    plain = draw(method, language=language)
    said = language.generation_config
    language.generation_config = GenerationConfig.from_dict({**said.to_dict(), **LEAKS})
    try:
        assert torch.equal(draw(method, language=language), plain), (
            "the checkpoint's own generation config changes what is decoded: pass every option"
        )
    finally:
        language.generation_config = said


def test_every_end_token_ends(method: type[Decoding]) -> None:
    """A list of end tokens in the generation config is one to stop at, whichever comes."""
    language = model()
    said = language.generation_config
    free = draw(method, language=language).tolist()
    language.generation_config = GenerationConfig(eos_token_id=[END, free[0][2]], pad_token_id=PAD)
    try:
        row = draw(method, language=language)[0].tolist()
    finally:
        language.generation_config = said
    if free[0][2] in row:
        assert set(row[row.index(free[0][2]) + 1 :]) <= {PAD}, (
            "tokens follow an end token: every id of eos_token_id ends, and padding follows"
        )


def test_nothing_but_padding_follows_the_end(method: type[Decoding]) -> None:
    language = model()
    with torch.no_grad():  # the end is by far the likeliest token after a few others
        language.lm_head.weight[END] = language.lm_head.weight.abs().sum(0) * 0.02
    rows = [row for seed in range(2) for row in draw(method, seed=seed, language=language).tolist()]
    for row in rows:
        if END in row:
            assert set(row[row.index(END) + 1 :]) <= {PAD}, "a sequence stops at its end token"
