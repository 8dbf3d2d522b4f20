"""Messages: conversations as chat endpoints write and fine-tuning services take them."""

from harness import Method, hookimpl
from harness_plugins.instruction._messages import MessagesReader


class Messages(MessagesReader):
    """JSON Lines, JSON or Parquet of {messages: [{role, content}], tools}, as UltraChat's files are, or of
    {prompt, completion}, each a text or messages (TRL).

    Content may be text, parts of text, or null beside `tool_calls`; calls are learned as the template writes
    them, what tools answer is read. The role `developer` is read as system, and so is a `system` beside the
    messages. Conversations with images or sounds are left out, counted.
    Paper: Ding et al. 2023, arXiv:2305.14233 (UltraChat)
    """

    name = "messages"
    sample_name = "sample.jsonl"
    sample = (
        '{"messages": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": '
        '[{"type": "text", "text": "Name a river."}]}, {"role": "assistant", "content": "The Elbe."}]}\n'
        '{"data": ["Hi", "Hello, how can I help?", "A joke?", "Later."]}\n'
    )


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Messages]
