"""The prompt template: one jinja text used in training, in evaluation, and saved with the tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from harness.axes.instruction import Conversation, Role, Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'assistant' -%}{{- '<|assistant|> ' + message['content'] + '<|eos|>' -}}"
    "{%- elif message['role'] == 'user' -%}{{- '<|user|> ' + message['content'] -}}"
    "{%- else -%}{{- message['content'] + '\\n' -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
"""Template of every tokenizer trained here: role tokens, and eos after each answer."""

TEXT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'assistant' -%}"
    "{{- '[|AI|]: ' + message['content'] + eos_token -}}"
    "{%- elif message['role'] == 'user' -%}"
    "{{- '\\n[|Human|]: ' + message['content'] + '\\n\\n' -}}"
    "{%- else -%}{{- message['content'] + '\\n' -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '[|AI|]: ' -}}{%- endif -%}"
)
"""Template for a pretrained tokenizer that brings none: roles as plain text, as the survey's code writes
them (RUCAIBox/LLMSurvey), so that no embedding is added."""

IGNORED = -100
"""Label of a token that is not learned."""


class Template:
    """Writes conversations as the tokenizer's own chat template does.

    Shapes: ids_T and labels_T int64 of one length; labels are not shifted, IGNORED outside answers
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        if not tokenizer.chat_template:
            known = tokenizer.convert_tokens_to_ids("<|assistant|>") not in (None, tokenizer.unk_token_id)
            tokenizer.chat_template = CHAT_TEMPLATE if known else TEXT_TEMPLATE

    def render(self, turns: Sequence[Turn], *, open_answer: bool = False) -> str:
        """The text of some turns; `open_answer` ends it where the assistant is to speak."""
        messages = [{"role": turn.role.value, "content": turn.text} for turn in turns]
        text: str = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=open_answer
        )
        return text

    def prompt(self, text: str) -> str:
        """The text that makes the assistant answer one user turn."""
        return self.render([Turn(role=Role.user, text=text)], open_answer=True)

    def prompt_ids(self, text: str) -> list[int]:
        """Token ids of `prompt(text)`, exactly those that training puts before an answer."""
        return self._ids(self.prompt(text))

    def encode(self, conversation: Conversation) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and labels of a conversation; answers and the end after each are learned.

        Prompt and answer are encoded apart, so that the prompt's tokens are those of generation.
        """
        ids: list[int] = []
        labels: list[int] = []
        done = ""
        for index, turn in enumerate(conversation.turns):
            if turn.role is not Role.assistant:
                continue
            opened = self.render(conversation.turns[:index], open_answer=True)
            closed = self.render(conversation.turns[: index + 1])
            prompt_ids, answer_ids = self._ids(opened[len(done) :]), self._ids(closed[len(opened) :])
            ids += prompt_ids + answer_ids
            labels += [IGNORED] * len(prompt_ids) + answer_ids
            done = closed
        return np.array(ids, dtype=np.int64), np.array(labels, dtype=np.int64)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids
