"""Every chat template that TRL and transformers ship: what is learned is what the whole conversation says."""

import ast
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from harness_plugins.tokenizer.byte import Byte
from transformers import PreTrainedTokenizerFast

from harness.axes.instruction import Conversation, Role, Turn
from harness.data.template import IGNORED, Template
from harness.data.tokenization import load_tokenizer, save_tokenizer
from harness.errors import DataError

FIRST = (Role.user, "Ask one?"), (Role.assistant, "Answer one here.")
SECOND = (Role.user, "Ask two?"), (Role.assistant, "Answer two there.")
SYSTEM = (Role.system, "Be kind.")
CASES = {
    "single": FIRST,
    "several": (*FIRST, *SECOND),
    "system": (SYSTEM, *FIRST),
    "system, several": (SYSTEM, *FIRST, *SECOND),
    "reasoning": ((Role.user, "Ask?"), (Role.assistant, "<think>\nWell.\n</think>\n\nSo it is."), *SECOND),
    "padded": ((Role.user, " Ask? "), (Role.assistant, "  An answer. \n"), *SECOND),
}
NO_SYSTEM = ("gemma.jinja", "gemma_training.jinja")


def _package(name: str) -> Path:
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def published() -> Iterator[tuple[str, str]]:
    """Name and text of each template."""
    for file in sorted((_package("trl") / "chat_templates").glob("*.jinja")):
        yield file.name, file.read_text()
    for file in sorted((_package("transformers") / "models").rglob("processing_*.py")):
        source = file.read_text()
        for node in ast.walk(ast.parse(source)) if "{%" in source else ():
            text = node.value if isinstance(node, ast.Constant) else None
            if isinstance(text, str) and "endfor" in text and "messages" in text:
                yield file.stem, text


TEMPLATES = dict(published())


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    directory = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(Byte().train(iter(())), directory)
    return load_tokenizer(directory)


def conversation(case: str) -> Conversation:
    turns = tuple(Turn(role=role, text=text) for role, text in CASES[case])
    return Conversation(id="a", turns=turns, source="test")


def learned_texts(tokenizer: PreTrainedTokenizerFast, labels: np.ndarray) -> list[str]:
    """The text of each stretch of learned tokens."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], (labels != IGNORED).astype(int), [0]])))
    return [tokenizer.decode(labels[a:b]) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def test_both_packages_ship_templates() -> None:
    assert len(TEMPLATES) > 70


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", TEMPLATES)
def test_learned_text_is_that_of_the_whole_conversation(
    tokenizer: PreTrainedTokenizerFast, name: str, case: str
) -> None:
    tokenizer.chat_template = TEMPLATES[name]
    template, given = Template(tokenizer), conversation(case)
    if name in NO_SYSTEM and case.startswith("system"):
        with pytest.raises(DataError, match="System role not supported"):
            template.encode(given)
        return
    if case == "reasoning" and "training" not in name:
        # Templates that drop earlier reasoning change the answer: refused, or kept word for word.
        try:
            ids, labels = template.encode(given)
        except DataError as error:
            assert "changes the answer" in str(error)  # noqa: PT017 - both outcomes are right
            return
    else:
        ids, labels = template.encode(given)
    parts = [
        {
            "role": turn.role.value,
            "content": [{"type": "text", "text": turn.text}] if template.form.parts else turn.text,
        }
        for turn in given.turns
    ]
    whole = tokenizer.apply_chat_template(parts, tokenize=False)
    assert tokenizer.decode(ids) == whole
    assert (labels[labels != IGNORED] == ids[labels != IGNORED]).all()
    learned = learned_texts(tokenizer, labels)
    answers = [turn.text.strip() for turn in given.turns if turn.role is Role.assistant]
    assert len(learned) == len(answers)
    for text, answer in zip(learned, answers, strict=True):
        assert answer.rpartition("</think>")[2].strip() in text
        assert "Ask" not in text
        assert "kind" not in text


@pytest.mark.parametrize("case", ["single", "several"])
@pytest.mark.parametrize("name", [name for name in TEMPLATES if "training" in name])
def test_marked_answers_are_those_that_transformers_finds(
    tokenizer: PreTrainedTokenizerFast, name: str, case: str
) -> None:
    tokenizer.chat_template = TEMPLATES[name]
    template, given = Template(tokenizer), conversation(case)
    ids, labels = template.encode(given)
    content = (lambda text: [{"type": "text", "text": text}]) if template.form.parts else str
    expected = tokenizer.apply_chat_template(
        [{"role": turn.role.value, "content": content(turn.text)} for turn in given.turns],
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    marked = np.array(expected["assistant_masks"], dtype=bool)
    if marked.any():
        assert (ids == expected["input_ids"]).all()
        assert ((labels != IGNORED) == marked).all()


CALL = {
    "type": "function",
    "id": "abcdefghi",
    "function": {"name": "look_up", "arguments": {"city": "Bonn"}},
}
CALLING = (
    Turn(role=Role.user, text="Weather?"),
    Turn(role=Role.assistant, text="", tool_calls=(CALL,)),
    Turn(role=Role.tool, text="Cloudy.", name="look_up", tool_call_id="abcdefghi"),
    Turn(role=Role.assistant, text="Take a coat."),
)
LOOKING = (*CALLING[:1], Turn(role=Role.assistant, text="I look.", tool_calls=(CALL,)), *CALLING[2:])
WITH_CALLS = ("gptoss", "llama3_1", "nemotron_3_nano", "qwen2_5", "qwen3", "qwen3_vl")
"""Templates known to write calls; what has no text beside them is null for one and absent for another."""


@pytest.mark.parametrize("turns", [CALLING, LOOKING], ids=["silent", "beside a text"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_calls_are_learned_whole_and_what_tools_say_is_not(
    tokenizer: PreTrainedTokenizerFast, name: str, turns: tuple[Turn, ...]
) -> None:
    tokenizer.chat_template = TEMPLATES[name]
    given = Conversation(id="a", turns=turns, source="test")
    try:
        ids, labels = Template(tokenizer).encode(given)
    except DataError as error:
        assert "call" in str(error) or "changes the answer 'I look.'" in str(error)  # noqa: PT017
        assert turns is LOOKING or name.removesuffix(".jinja") not in WITH_CALLS
        return
    learned = learned_texts(tokenizer, labels)
    assert len(learned) == 2
    assert all(part in learned[0] for part in ("look_up", "city", "Bonn", turns[1].text))
    assert "Take a coat." in learned[1]
    assert not any(word in text for text in learned for word in ("Cloudy", "Weather", "None", "null"))
    assert "Cloudy." in tokenizer.decode(ids)


@pytest.mark.parametrize("name", ["glm4moe", "nemotron_3_nano", "qwen3", "qwen3_5_think"])
def test_reasoning_in_the_last_answer_leaves_earlier_ones_findable(
    tokenizer: PreTrainedTokenizerFast, name: str
) -> None:
    """The prompt may open the reasoning, and earlier answers are written without theirs."""
    tokenizer.chat_template = TEMPLATES[f"{name}.jinja"]
    answer = "<think>\nHmm.\n</think>\n\nTwo."
    pairs = (*FIRST, (Role.user, "Ask two?"), (Role.assistant, answer))
    turns = tuple(Turn(role=role, text=text) for role, text in pairs)
    _, labels = Template(tokenizer).encode(Conversation(id="a", turns=turns, source="test"))
    first, second = learned_texts(tokenizer, labels)
    assert "Answer one here." in first
    assert "Hmm." in second.split("</think>")[0]
    assert "Two." in second.split("</think>")[1]


def test_an_answer_that_the_template_mangles_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.chat_template = (
        "{%- for m in messages -%}{{ m['role'] + ': ' + (m['content'] if loop.last else m['content'][:3]) }}"
        "{%- endfor -%}"
    )
    with pytest.raises(DataError, match=r"changes the answer 'Answer one here\.'"):
        Template(tokenizer).encode(conversation("several"))


@pytest.mark.parametrize("name", ["gptoss", "phi3", "qwen2_5"])
def test_an_empty_answer_is_learned_as_its_end_or_refused(
    tokenizer: PreTrainedTokenizerFast, name: str
) -> None:
    tokenizer.chat_template = TEMPLATES[f"{name}.jinja"]
    turns = (*conversation("single").turns[:1], Turn(role=Role.assistant, text=""))
    later = conversation("single").turns
    template = Template(tokenizer)
    for given in (turns, (*turns, *later)):
        try:
            _, labels = template.encode(Conversation(id="a", turns=given, source="test"))
        except DataError as error:
            assert "changes the answer ''" in str(error)  # noqa: PT017 - both outcomes are right
            continue
        assert "Ask" not in "".join(learned_texts(tokenizer, labels))


def test_the_end_of_a_turn_ends_an_answer(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.add_special_tokens(
        {"additional_special_tokens": ["<|im_end|>"]}, replace_extra_special_tokens=False
    )
    tokenizer.chat_template = TEMPLATES["qwen2_5.jinja"]
    ends = tokenizer.convert_ids_to_tokens(Template(tokenizer).end_ids())
    assert set(ends) == {"<|im_end|>", "<|eos|>"}
