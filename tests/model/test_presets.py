"""Presets: the survey's model cards have the published sizes, counted on the meta device."""

import re

import pytest

from harness.commands.docs import ROOT
from harness.model.cards import card, card_files, cards_page

TABLE_5 = "gpt3 pangu_alpha opt_175b palm bloom_176b mt_nlg gopher chinchilla galactica lamda jurassic_1"
TABLE_5 += " llama_65b llama2_70b falcon_40b glm_130b t5_11b"
"""One preset for each row."""
FILES = {file.stem: file for file in card_files()}


@pytest.mark.parametrize("name", FILES)
def test_a_card_has_its_published_size_or_states_by_how_much_it_differs(name):
    found = card(FILES[name])
    print(f"{name}: {found.counted / 1e9:.4g}e9, {found.difference:+.2%}. {found.notes}")
    stated = re.search(r"([\d.]+) % (more|fewer) here: \w+", found.notes)
    if stated is None:
        assert abs(found.difference) <= 0.01
    else:
        sign = {"more": 1, "fewer": -1}[stated[2]]
        assert found.difference == pytest.approx(sign * float(stated[1]) / 100, abs=0.0005)


def test_every_row_of_the_survey_has_a_card():
    assert set(TABLE_5.split()) <= set(FILES)


@pytest.mark.parametrize(
    ("name", "exact"),
    [
        ("llama_7b", 6738415616),
        ("llama2_70b", 68976648192),
        ("t5_11b", 11307321344),
        ("bloom_176b", 176247271424),
        ("gpt2_124m", 124439808),
        ("pythia_160m", 162322944),
        ("gemma3_1b", 999885952),
    ],
)
def test_released_checkpoints_have_exactly_this_many_weights(name, exact):
    assert card(FILES[name]).counted == exact


def test_a_card_has_the_layers_that_its_pattern_says():
    """Those of transformers' Gemma 3 of that size: windows in five of six layers, and two bases."""
    from transformers import Gemma3TextConfig

    from harness.axes import MODEL_AXES
    from harness.compose import compose
    from harness.model import meta_model

    theirs = Gemma3TextConfig(num_hidden_layers=26)
    cell = compose(["model=gemma3_1b", "tokenizer.vocab_size=262144"])
    model = meta_model(cell.spec(), {axis: cell.choice(axis) for axis in MODEL_AXES}).model
    windows = [getattr(layer.self_attn.config, "window", None) for layer in model.layers]
    assert windows == [512 if kind == "sliding_attention" else None for kind in theirs.layer_types]
    bases = [model.position_at(at).config.base for at in model.position_of_layer]
    stated = theirs.rope_parameters
    assert bases == [stated[kind]["rope_theta"] for kind in theirs.layer_types]


def test_the_page_of_cards_is_up_to_date():
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    assert page == cards_page(), "run `python -m harness.commands.docs`"


@pytest.mark.parametrize(
    ("name", "vocabulary", "least", "most"), [("mini", 1024, 5e5, 1e6), ("small", 8192, 9e6, 1.1e7)]
)
def test_small_presets_have_the_size_that_their_comment_says(name, vocabulary, least, most):
    from harness.axes import MODEL_AXES
    from harness.compose import compose
    from harness.model import meta_model

    cell = compose([f"model={name}", f"tokenizer.vocab_size={vocabulary}"])
    model = meta_model(cell.spec(), {axis: cell.choice(axis) for axis in MODEL_AXES})
    assert least < sum(parameter.numel() for parameter in model.parameters()) < most
