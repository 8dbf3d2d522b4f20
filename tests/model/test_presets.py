"""Presets: the survey's model cards have the published sizes, counted on the meta device."""

import re
from pathlib import Path

import pytest

from harness.axes import MODEL_AXES
from harness.compose import compose
from harness.model import meta_model

FOLDER = Path(__file__).parents[2] / "conf" / "model"
EXPLAINED = {"gopher": -0.078, "chinchilla": -0.076, "galactica": 0.011, "llama2_70b": -0.015}
EXPLAINED |= {"falcon_40b": 0.033, "t5_11b": 0.028}
"""Presets whose size differs by more than 1 %, for the reason that their comment states."""
CARDS = sorted(file.stem for file in FOLDER.glob("*.yaml") if "published" in file.read_text())


def _count(name, vocabulary):
    cell = compose([f"model={name}", f"tokenizer.vocab_size={vocabulary}"])
    model = meta_model(cell.spec(), {axis: cell.choice(axis) for axis in MODEL_AXES})
    return sum(parameter.numel() for parameter in model.parameters())


def _published(name):
    text = (FOLDER / f"{name}.yaml").read_text()
    found = re.search(r"published ([\d.e]+), vocabulary (\d+)", text)
    return float(found[1]), int(found[2])


@pytest.mark.parametrize("name", CARDS)
def test_a_card_has_its_published_size(name):
    size, vocabulary = _published(name)
    assert _count(name, vocabulary) / size - 1 == pytest.approx(EXPLAINED.get(name, 0.0), abs=0.0101)
    explained = "% fewer here" in (FOLDER / f"{name}.yaml").read_text()
    explained |= "% more here" in (FOLDER / f"{name}.yaml").read_text()
    assert explained == (name in EXPLAINED), "state the difference, and why, in the preset's comment"


def test_every_row_of_the_survey_has_a_card():
    rows = "gpt3 pangu_alpha opt_175b palm bloom_176b mt_nlg gopher chinchilla galactica lamda jurassic_1"
    rows += " llama_65b llama2_70b falcon_40b glm_130b t5_11b"
    assert set(rows.split()) <= set(CARDS)


@pytest.mark.parametrize(
    ("name", "exact"), [("llama_7b", 6738415616), ("llama2_70b", 68976648192), ("t5_11b", 11307321344)]
)
def test_released_checkpoints_have_exactly_this_many_weights(name, exact):
    assert _count(name, _published(name)[1]) == exact


def test_the_mini_model_has_half_a_million_to_a_million_weights():
    assert 5e5 < _count("mini", 1024) < 1e6
    assert 9e6 < _count("small", 8192) < 1.1e7
