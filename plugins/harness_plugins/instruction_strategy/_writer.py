"""Options and calls of strategies that let a model write instructions or answers."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from harness import (
    ConfigError,
    Conversation,
    Endpoint,
    InstructionStrategy,
    Problem,
    Role,
    Turn,
    Writer,
    missing_key,
    model_ref,
)

NUMBER = re.compile(r"^\s*(?:\d+[.):]|[-*])\s*")


@dataclass(frozen=True, kw_only=True)
class WriterConfig(InstructionStrategy.Config):
    """Who writes, and how."""

    writer: str = model_ref()
    """Model that writes (`path:DIR`, `hub:name`, `cell:...`)."""
    url: str = ""
    """OpenAI-compatible endpoint that writes, in place of `writer`, e.g. http://localhost:8000/v1."""
    endpoint_model: str = ""
    """Name the endpoint knows its model by."""
    key_variable: str = ""
    """Environment variable that holds the endpoint's key; empty for one without a key."""
    writer_temperature: float = 0.7
    """Temperature of what is written by `writer`; an endpoint has its own."""
    writer_tokens: int = 256
    """Longest text, in tokens."""

    def __post_init__(self) -> None:
        if self.writer and self.url:
            raise ConfigError("instruction_strategy: give writer or url, not both")
        if self.url and not self.endpoint_model:
            raise ConfigError("instruction_strategy.url needs instruction_strategy.endpoint_model")
        if self.writer_temperature <= 0 or self.writer_tokens < 1:
            raise ConfigError(
                "instruction_strategy.writer_temperature must be positive, writer_tokens at least 1"
            )

    @property
    def writes(self) -> bool:
        """Whether anyone writes."""
        return bool(self.writer or self.url)


def writer_problems(config: Any, *, required: bool) -> Iterable[Problem]:
    """A writer that is missing, or has no key."""
    if required and not config.writes:
        yield Problem(
            where="instruction_strategy.writer",
            message="somebody must write: a model (writer=path:DIR) or an endpoint (url=...)",
        )
    if config.url:
        yield from missing_key(config.key_variable, where="instruction_strategy.key_variable")


def writer_of(config: Any, models: Mapping[str, tuple[nn.Module, Any]]) -> Writer:
    """The one who writes."""
    if config.url:
        body = {"max_tokens": config.writer_tokens, "temperature": config.writer_temperature}
        endpoint = Endpoint(
            url=config.url, model=config.endpoint_model, key_variable=config.key_variable, body=body
        )
        return Writer(endpoint=endpoint)
    model, tokenizer = models["writer"]
    return Writer(
        model,
        tokenizer,
        temperature=config.writer_temperature,
        max_new_tokens=config.writer_tokens,
    )


def single(conversations: Sequence[Conversation]) -> list[Conversation]:
    """Conversations of one question and one answer, which these methods rewrite."""
    roles = (Role.user, Role.assistant)
    return [c for c in conversations if tuple(t.role for t in c.turns) == roles]


def exchange(conversation: Conversation, suffix: str, question: str, answer: str) -> Conversation:
    """A written exchange, which keeps the id that it was made from; no check is known of it."""
    turns = Turn(role=Role.user, text=question), Turn(role=Role.assistant, text=answer)
    return Conversation(
        id=f"{conversation.id}#{suffix}", turns=turns, source=conversation.source, split=conversation.split
    )


def cleaned(text: str) -> str:
    """A written instruction without the number or heading that models put before it."""
    text = re.sub(r"#[^#\n]{1,40}#:?", "", text).strip()
    return NUMBER.sub("", text).strip().strip('"').strip()
