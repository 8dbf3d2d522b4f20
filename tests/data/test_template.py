"""The prompt template: what is written, and which tokens are learned."""

from pathlib import Path

import pytest
from harness_plugins.tokenizer.byte import Byte

from harness.axes.instruction import Conversation, Role, Turn
from harness.data.template import CHAT_TEMPLATE, IGNORED, TEXT_TEMPLATE, Template
from harness.data.tokenization import load_tokenizer, save_tokenizer

PAD, BOS, EOS, UNK, USER, ASSISTANT, MASK = range(7)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    directory: Path = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(Byte().train(iter(())), directory)
    return Template(load_tokenizer(directory))


def conversation(*turns: tuple[Role, str]) -> Conversation:
    return Conversation(id="a", turns=tuple(Turn(role=r, text=t) for r, t in turns), source="test")


def symbols(template: Template, values: list[int]) -> list[str]:
    """Tokens as text, - where nothing is learned."""
    return ["-" if v == IGNORED else template.tokenizer.decode([v]) for v in values]


def test_the_loss_of_one_exchange_counts_the_answer_and_its_end(template: Template) -> None:
    ids, labels = template.encode(conversation((Role.user, "Hi"), (Role.assistant, "Yo")))
    written = symbols(template, ids.tolist())
    assert written == ["<|user|>", " ", "H", "i", "<|assistant|>", " ", "Y", "o", "<|eos|>"]
    learned = symbols(template, labels.tolist())
    assert learned == ["-", "-", "-", "-", "-", " ", "Y", "o", "<|eos|>"]


def test_the_loss_of_several_exchanges_counts_every_answer(template: Template) -> None:
    ids, labels = template.encode(
        conversation((Role.user, "a"), (Role.assistant, "b"), (Role.user, "c"), (Role.assistant, "d"))
    )
    assert "".join(symbols(template, ids.tolist())) == (
        "<|user|> a<|assistant|> b<|eos|><|user|> c<|assistant|> d<|eos|>"
    )
    assert symbols(template, labels.tolist()) == [
        *("-", "-", "-", "-", " ", "b", "<|eos|>"),
        *("-", "-", "-", "-", " ", "d", "<|eos|>"),
    ]


def test_a_system_text_is_read_and_not_learned(template: Template) -> None:
    ids, labels = template.encode(conversation((Role.system, "S"), (Role.user, "a"), (Role.assistant, "b")))
    assert "".join(symbols(template, ids.tolist())) == "S\n<|user|> a<|assistant|> b<|eos|>"
    assert (labels[:-3] == IGNORED).all()
    assert symbols(template, labels[-3:].tolist()) == [" ", "b", "<|eos|>"]


def test_the_prompt_has_the_tokens_that_training_puts_before_the_answer(template: Template) -> None:
    ids, labels = template.encode(conversation((Role.user, "Say: x"), (Role.assistant, "x")))
    prompt = template.prompt_ids("Say: x")
    assert ids[: len(prompt)].tolist() == prompt
    assert (labels[: len(prompt)] == IGNORED).all()
    assert labels[len(prompt)] != IGNORED


def test_text_with_special_tokens_in_braces_stays_text(template: Template) -> None:
    ids, _ = template.encode(conversation((Role.user, "{{ x }} {% if %}"), (Role.assistant, "ok")))
    assert "{{ x }} {% if %}" in "".join(symbols(template, ids.tolist()))


def test_a_tokenizer_without_role_tokens_gets_roles_as_text(tmp_path: Path) -> None:
    from harness_plugins.tokenizer.pretrained import Pretrained

    Pretrained.trial(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    template = Template(tokenizer)
    assert tokenizer.chat_template == TEXT_TEMPLATE
    ids, labels = template.encode(conversation((Role.user, "Hi"), (Role.assistant, "Yo")))
    text = tokenizer.decode(ids.tolist())
    assert text == "\n[|Human|]: Hi\n\n[|AI|]: Yo<|eos|>"
    assert tokenizer.decode([i for i in labels.tolist() if i != IGNORED]) == "Yo<|eos|>"


def test_the_template_is_saved_with_the_tokenizer(template: Template) -> None:
    assert template.tokenizer.chat_template == CHAT_TEMPLATE


def test_a_tokenizer_that_begins_with_bos_does_so_here(tmp_path: Path) -> None:
    from harness_plugins.tokenizer.pretrained import Pretrained
    from tokenizers.processors import TemplateProcessing

    Pretrained.trial(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    tokenizer.add_special_tokens({"bos_token": "<|bos|>"})
    bos = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|bos|> $A", special_tokens=[("<|bos|>", bos)]
    )
    ids, labels = Template(tokenizer).encode(conversation((Role.user, "Hi"), (Role.assistant, "Yo")))
    assert ids[:2].tolist() == [bos, *tokenizer("\n", add_special_tokens=False)["input_ids"][:1]]
    assert (ids == bos).sum() == 1
    assert tokenizer.decode([i for i in labels.tolist() if i != IGNORED]) == "Yo<|eos|>"


@pytest.mark.parametrize("before", ["<|eos|>", "<s>", "[gMASK] <sop>", 'a"{{b}}'])
def test_what_a_base_tokenizer_puts_before_a_text_stands_before_a_conversation(
    before: str, tmp_path: Path
) -> None:
    """XGLM begins with its end, some without naming a BOS, GLM with two tokens."""
    from harness_plugins.tokenizer.pretrained import Pretrained
    from tokenizers.processors import TemplateProcessing

    Pretrained.trial(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    tokenizer.add_special_tokens({"additional_special_tokens": before.split()})
    named = [(token, tokenizer.convert_tokens_to_ids(token)) for token in before.split()]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=[*(token for token, _ in named), "$A"], special_tokens=named
    )
    assert tokenizer("Hi")["input_ids"][: len(named)] == [number for _, number in named]
    ids, _ = Template(tokenizer).encode(conversation((Role.user, "Hi"), (Role.assistant, "Yo")))
    begin = tokenizer("\n", add_special_tokens=False)["input_ids"][0]
    assert ids[: len(named) + 1].tolist() == [*(number for _, number in named), begin]


def test_a_tokenizer_without_an_end_is_refused(tmp_path: Path) -> None:
    from harness_plugins.tokenizer.pretrained import Pretrained

    from harness.errors import DataError

    Pretrained.trial(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    tokenizer.eos_token = None
    with pytest.raises(DataError, match="neither a chat template nor an end token"):
        Template(tokenizer)


def test_calls_of_tools_are_learned_as_json(template: Template) -> None:
    call = {"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    turns = (
        Turn(role=Role.user, text="1 + 1?"),
        Turn(role=Role.assistant, text="", tool_calls=(call,)),
        Turn(role=Role.tool, text="2", name="add"),
        Turn(role=Role.assistant, text="Two."),
    )
    tools = ({"type": "function", "function": {"name": "add"}},)
    given = Conversation(id="a", turns=turns, source="test", tools=tools)
    ids, labels = template.encode(given)
    written = template.tokenizer.decode(ids)
    assert written == (
        'Tools: [{"type": "function", "function": {"name": "add"}}]\n<|user|> 1 + 1?'
        '<|assistant|> <tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call><|eos|>'
        "Result: 2\n<|assistant|> Two.<|eos|>"
    )
    learned = template.tokenizer.decode(labels[labels != IGNORED])
    assert learned == (' <tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call><|eos|> Two.<|eos|>')


def test_only_turns_from_a_place_on_are_learned(template: Template) -> None:
    given = conversation((Role.user, "a"), (Role.assistant, "b"), (Role.user, "c"), (Role.assistant, "d"))
    ids, labels = template.encode(given, learn_from=3)
    assert template.tokenizer.decode(labels[labels != IGNORED]) == " d<|eos|>"
    prompt = template.prompt_ids(given.turns[:3])
    assert ids[: len(prompt)].tolist() == prompt
