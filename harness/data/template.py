"""The prompt template: one jinja text used in training, in evaluation, and saved with the tokenizer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.axes.instruction import Conversation, Prompt, Role, Turn, as_turns
from harness.data.message_form import MessageForm, Silence
from harness.data.spans import Span, answer_spans, bare
from harness.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Tools = Sequence[Mapping[str, Any]]

_CALLS = (
    "{%- for call in message['tool_calls'] or [] -%}"
    "{{- '<tool_call>' + (call['function'] | tojson) + '</tool_call>' -}}{%- endfor -%}"
)
_OTHERS = (
    "{%- elif message['role'] == 'tool' -%}{{- 'Result: ' + message['content'] + '\\n' -}}"
    "{%- else -%}{{- message['content'] + '\\n' -}}{%- endif -%}"
)
_TOOLS = "{%- if tools -%}{{- 'Tools: ' + (tools | tojson) + '\\n' -}}{%- endif -%}"

CHAT_TEMPLATE = (
    f"{_TOOLS}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'assistant' -%}"
    "{{- '<|assistant|> ' + (message['content'] or '') -}}" + _CALLS + "{{- '<|eos|>' -}}"
    "{%- elif message['role'] == 'user' -%}{{- '<|user|> ' + message['content'] -}}"
    + _OTHERS
    + "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
"""Template of every tokenizer trained here: role tokens, and eos after each answer."""

TEXT_TEMPLATE = (
    f"{_TOOLS}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'assistant' -%}"
    "{{- '[|AI|]: ' + (message['content'] or '') -}}" + _CALLS + "{{- eos_token -}}"
    "{%- elif message['role'] == 'user' -%}"
    "{{- '\\n[|Human|]: ' + message['content'] + '\\n\\n' -}}" + _OTHERS + "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '[|AI|]: ' -}}{%- endif -%}"
)
"""Template for a pretrained tokenizer that brings none: roles as plain text, as the survey's code writes
them (RUCAIBox/LLMSurvey), so that no embedding is added."""

_MARKER = re.compile(r"\{%-?\s*generation\s*-?%\}")
_EMPTY = re.compile(r"\b(?:None|null|undefined)\b")
"""What a template writes that prints a text that is not there."""

IGNORED = -100
"""Label of a token that is not learned."""

QUESTION, ANSWER = "What-is-asked", "What-is-answered"
"""A conversation that shows how a template writes one."""
CALLED = "what_is_called"
CALL = {"type": "function", "id": "callnumb1", "function": {"name": CALLED, "arguments": {"place": "here"}}}
"""A call that shows how; its id has the nine letters and digits that some templates ask for."""


class Template:
    """Writes conversations as the tokenizer's own chat template does.

    Shapes: ids_T and labels_T int64 of one length; labels are not shifted, IGNORED outside answers
    Raises: DataError where a tokenizer without a template has no end token
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        if not tokenizer.chat_template:
            tokenizer.chat_template = _own_template(tokenizer)
        probe = Turn(role=Role.user, text=QUESTION)
        # Templates of models that see images read parts, and write nothing of a plain string.
        plain, parted = MessageForm(), MessageForm(parts=True)
        in_parts = QUESTION not in self._written([probe], plain) and QUESTION in self._written(
            [probe], parted
        )
        self.form = parted if in_parts else plain
        self.splits_freely = _splits_freely(tokenizer)

    def render(self, turns: Sequence[Turn], *, open_answer: bool = False, tools: Tools = ()) -> str:
        """The text of some turns; `open_answer` ends it where the assistant is to speak.

        Raises: DataError where the template refuses them
        """
        text, _ = self._rendered(turns, open_answer=open_answer, tools=tools)
        return text

    def prompt(self, prompt: Prompt) -> str:
        """The text that makes the assistant answer."""
        return self.render(as_turns(prompt), open_answer=True)

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """Token ids of `prompt(prompt)`, exactly those that training puts before an answer."""
        turns = as_turns(prompt)
        text, marked = self._rendered(turns, open_answer=True)
        spans = self._spans(turns, text, marked, ()) if any(t.role is Role.assistant for t in turns) else []
        return self._encoded(text, spans)[0].tolist()  # type: ignore[no-any-return]

    def encode(self, conversation: Conversation, *, learn_from: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and labels of a conversation; answers and the end after each are learned.

        `learn_from` is the index of the first turn that may be learned. Prompt and answer are encoded apart
        where the tokenizer allows, so that the prompt's tokens are those of generation. The text of all
        tokens is the rendered conversation, and what is learned is where the template writes the answers.
        Raises: DataError where the template refuses the turns, or where its answers cannot be found
        """
        turns = conversation.turns
        text, marked = self._rendered(turns, tools=conversation.tools)
        spans = self._spans(turns, text, marked, conversation.tools)
        answers = [index for index, turn in enumerate(turns) if turn.role is Role.assistant]
        for index, (start, end) in zip(answers, spans, strict=True):
            _hold(turns[index], text[start:end])
        ids, labels = self._encoded(
            text,
            [span for index, span in zip(answers, spans, strict=True) if index >= learn_from],
            cuts=spans,
        )
        return ids, labels

    def end_ids(self) -> list[int]:
        """Tokens that end an answer: what the template writes after one, and the tokenizer's own end."""
        turns = [Turn(role=Role.user, text=QUESTION), Turn(role=Role.assistant, text=ANSWER)]
        after = self._ids(self.render(turns).rpartition(ANSWER)[2])
        added = {*self.tokenizer.added_tokens_decoder, *self.tokenizer.all_special_ids}
        ends = [self.tokenizer.eos_token_id, *(after[:1] if after and after[0] in added else [])]
        return sorted({end for end in ends if end is not None})

    def _spans(self, turns: Sequence[Turn], text: str, marked: list[Span], tools: Tools) -> list[Span]:
        """Where the template writes each answer of `turns` in their whole text."""
        number = sum(turn.role is Role.assistant for turn in turns)
        if len(marked) == number and all(start < end for start, end in marked):
            return marked
        return answer_spans(
            turns, text, lambda part, open_answer: self.render(part, open_answer=open_answer, tools=tools)
        )

    @cached_property
    def calling_form(self) -> MessageForm | None:
        """How messages with calls are handed over; None where the template writes no call.

        Templates differ in what they take for the text that such a message lacks: some write a null out, some
        fail, some write no call beside a text. So the ways are tried.
        """
        turns = [Turn(role=Role.user, text=QUESTION), Turn(role=Role.assistant, text="", tool_calls=(CALL,))]
        for texts, silence in product((False, True), Silence):
            form = replace(self.form, texts=texts, silence=silence)
            after = self._written(turns, form, open_answer=False).partition(QUESTION)[2]
            if CALLED in after and not _EMPTY.search(after):
                return form
        return None

    def _rendered(
        self, turns: Sequence[Turn], *, open_answer: bool = False, tools: Tools = ()
    ) -> tuple[str, list[Span]]:
        """Text, and the spans between the template's own generation markers, if it has any."""
        from jinja2 import TemplateError

        form = self.calling_form if any(turn.tool_calls for turn in turns) else self.form
        if form is None:
            raise DataError("the chat template writes no calls of tools, which would be lost")
        try:
            return self._compiled(turns, form, open_answer=open_answer, tools=tools)
        except (TemplateError, TypeError) as error:
            roles = ", ".join(turn.role.value for turn in turns)
            raise DataError(f"the chat template refuses turns of {roles}: {error}") from error

    def _compiled(
        self, turns: Sequence[Turn], form: MessageForm, *, open_answer: bool, tools: Tools = ()
    ) -> tuple[str, list[Span]]:
        from transformers.utils.chat_template_utils import render_jinja_template

        written = self.tokenizer.get_chat_template(tools=list(tools) or None)  # type: ignore[arg-type]
        (text,), spans = render_jinja_template(
            conversations=[[form.message(turn) for turn in turns]],
            tools=[dict(tool) for tool in tools] or None,
            chat_template=written,
            add_generation_prompt=open_answer,
            return_assistant_tokens_mask=_MARKER.search(written) is not None,
            **self.tokenizer.special_tokens_map,
        )
        return text, [(start, end) for start, end in (spans or [[]])[0]]

    def _written(self, turns: Sequence[Turn], form: MessageForm, *, open_answer: bool = True) -> str:
        """The text of some turns as a probe; empty where the template does not take them so."""
        from jinja2 import TemplateError

        try:
            return self._compiled(turns, form, open_answer=open_answer)[0]
        except (TemplateError, TypeError):
            return ""

    def _encoded(
        self, text: str, learned: Sequence[Span], *, cuts: Sequence[Span] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ids and labels of a text with learned spans; tokens do not cross the ends of `cuts`."""
        places = sorted({0, len(text), *(place for span in (cuts or learned) for place in span)})
        starts = {start for start, _ in learned}
        if self.splits_freely:
            ids: list[int] = []
            labels: list[int] = []
            for start, end in pairwise(places):
                piece = self._ids(text[start:end])
                ids += piece
                labels += piece if start in starts else [IGNORED] * len(piece)
            return np.array(ids, dtype=np.int64), np.array(labels, dtype=np.int64)
        found = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        labels = [
            token if any(_within(text, place, span) for span in learned) else IGNORED
            for token, place in zip(found["input_ids"], found["offset_mapping"], strict=True)
        ]
        return np.array(found["input_ids"], dtype=np.int64), np.array(labels, dtype=np.int64)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
        return ids


def _own_template(tokenizer: PreTrainedTokenizerFast) -> str:
    """Our template for a tokenizer that brings none; begins with what the tokenizer puts before a text."""
    known = tokenizer.convert_tokens_to_ids("<|assistant|>") not in (None, tokenizer.unk_token_id)
    if known:
        return CHAT_TEMPLATE
    if tokenizer.eos_token is None:
        raise DataError(
            "the tokenizer has neither a chat template nor an end token, so that no answer would end; set "
            "its eos_token"
        )
    begins = _beginning(tokenizer)
    said = "bos_token" if begins == tokenizer.bos_token else json.dumps(begins, ensure_ascii=False)
    return (f"{{{{- {said} -}}}}" if begins else "") + TEXT_TEMPLATE


def _beginning(tokenizer: PreTrainedTokenizerFast) -> str:
    """The special tokens before a text: BOS, or whatever stands in its place (XGLM's end of a sentence)."""
    bare, whole = tokenizer("a", add_special_tokens=False)["input_ids"], tokenizer("a")["input_ids"]
    starts = (place for place in range(len(whole)) if whole[place : place + len(bare)] == bare)
    return "".join(tokenizer.convert_ids_to_tokens(whole[: next(starts, 0)]))


def _splits_freely(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether texts encoded apart are, joined, the text; not where each gets a space of its own."""
    parts = [tokenizer(part, add_special_tokens=False)["input_ids"] for part in ("x:", "y", "\nz")]
    whole: str = tokenizer.decode([i for part in parts for i in part], clean_up_tokenization_spaces=False)
    return whole == "x:y\nz"


def _within(text: str, place: tuple[int, int], span: Span) -> bool:
    """Whether a token lies in a span; white space before the span may belong to its first token."""
    (first, last), (start, end) = place, span
    return first < end and last > start and (first >= start or text[first:start].isspace())


def _hold(turn: Turn, learned: str) -> None:
    """Hold the template to an answer's calls, which some leave out.

    Raises: DataError where one does not stand in what is learned of it
    """
    beside = learned.replace(turn.text.strip(), "", 1)
    for call in turn.tool_calls:
        name = str(call.get("function", {}).get("name", ""))
        if name not in beside:
            raise DataError(f"the chat template does not write the call of '{name}' where it is learned")
    if turn.tool_calls and bare(turn.text.rpartition("</think>")[2]) not in bare(learned):
        raise DataError(f"the chat template drops the text {turn.text[:60]!r} beside a call")
