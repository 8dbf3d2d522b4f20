"""OpenAI: a language model behind any OpenAI-compatible endpoint compares two answers."""

import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from torch import nn

from harness import ConfigError, Duel, HarnessError, Judge, Method, Problem, hookimpl

PROMPT = """Two assistants answered one instruction. Say which answer is better.

Instruction:
{prompt}

Answer A:
{first}

Answer B:
{second}

Reply with one word: A, B, or tie."""


class OpenAi(Judge):
    """Asks a chat endpoint which answer is better; an unreadable verdict is an error, never a draw.

    Paper: Zheng et al. 2023, arXiv:2306.05685 (pairwise comparison, both orders)
    Raises: HarnessError naming endpoint and answer where the endpoint fails after all retries
    """

    name = "openai"
    online = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Judge.Config):
        url: str = "https://api.openai.com/v1"
        """Base of the endpoint; `/chat/completions` is added."""
        model: str = "gpt-4o-mini"
        """Name the endpoint knows its model by."""
        key_variable: str = "OPENAI_API_KEY"
        """Environment variable that holds the key; empty for an endpoint without one."""
        parallel: int = 8
        """Requests at once."""
        timeout: float = 60.0
        """Seconds to wait for one answer."""
        retries: int = 3
        """Further attempts after a refused or failed request."""
        wait: float = 2.0
        """Seconds before the first retry; doubles with each."""

        def __post_init__(self) -> None:
            if not self.url.startswith(("http://", "https://")):
                raise ConfigError(f"judge.url={self.url} must start with http:// or https://")
            if self.parallel < 1 or self.retries < 0:
                raise ConfigError("judge.parallel must be at least 1 and judge.retries at least 0")

    config: Config

    @classmethod
    def check(cls, config: Any, cell: Any, meta_model: nn.Module | None) -> Iterable[Problem]:
        if config.key_variable and not os.environ.get(config.key_variable):
            yield Problem(
                where="judge.key_variable",
                message=f"the environment has no {config.key_variable}; set it, or judge.key_variable='' "
                "for an endpoint without a key",
            )

    def prefer(self, duels: Sequence[Duel]) -> list[float]:
        with ThreadPoolExecutor(self.config.parallel) as pool:
            return list(pool.map(self._prefer, duels))

    def facts(self) -> dict[str, Any]:
        return {"judge_model": self.config.model}

    def _prefer(self, duel: Duel) -> float:
        text = self._ask(PROMPT.format(prompt=duel.prompt, first=duel.first, second=duel.second))
        verdict = re.match(r"\W*(a|b|tie)\b", text.strip(), re.IGNORECASE)
        if verdict is None:
            raise HarnessError(
                f"judge {self.config.model} at {self.config.url} gave no verdict: {text[:200]!r}"
            )
        return {"a": 1.0, "b": 0.0, "tie": 0.5}[verdict[1].lower()]

    def _ask(self, prompt: str) -> str:
        """The endpoint's answer; refused and failed requests are tried again."""
        config = self.config
        body = {
            "model": config.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": 8,
        }
        headers = {"Content-Type": "application/json"}
        if config.key_variable:
            headers["Authorization"] = f"Bearer {os.environ.get(config.key_variable, '')}"
        url = f"{config.url.rstrip('/')}/chat/completions"
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        for attempt in range(config.retries + 1):
            try:
                with urllib.request.urlopen(request, timeout=config.timeout) as response:
                    return str(json.load(response)["choices"][0]["message"]["content"])
            except urllib.error.HTTPError as error:
                reason = f"HTTP {error.code}: {' '.join(error.read(200).decode(errors='replace').split())}"
                final = error.code not in (408, 409, 429) and error.code < 500
            except (OSError, ValueError, KeyError, IndexError) as error:
                reason, final = f"{type(error).__name__}: {error}", False
            if final or attempt == config.retries:
                break
            time.sleep(config.wait * 2**attempt)
        raise HarnessError(f"judge.url={url} does not answer ({reason}); check url, key and model")


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [OpenAi]
