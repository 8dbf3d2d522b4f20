"""OpenAI: a language model behind any OpenAI-compatible endpoint compares two answers."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from torch import nn

from harness import (
    ConfigError,
    Duel,
    Endpoint,
    EndpointError,
    HarnessError,
    Judge,
    Method,
    Problem,
    as_text,
    hookimpl,
    missing_key,
)
from harness_plugins.judge._verdicts import read_verdict

PROMPT = """Two assistants answered one instruction. Say which answer is better.

Instruction:
{prompt}

Answer A:
{first}

Answer B:
{second}

Reply with one word: A, B, or tie."""

NO_VERDICT = float("nan")


class OpenAi(Judge):
    """Asks a chat endpoint which answer is better.

    A verdict is kept as soon as it comes, and an evaluation that was stopped asks only for the others. An
    unreadable one is asked for again, then left out, like one that the endpoint fails to give; their share
    is reported, and so are those whose text the endpoint refuses. No verdict at all, or an endpoint that
    refuses every request, is an error.
    Paper: Zheng et al. 2023, arXiv:2306.05685 (pairwise comparison, both orders)
    Raises: HarnessError naming endpoint and reason
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
        """Seconds before the first retry; doubles with each, unless the endpoint says how long."""
        asks: int = 2
        """Times a duel is asked where the answer names no winner."""
        max_tokens: int = 8
        """Longest answer of the judge, in tokens; one that reasons first needs hundreds."""
        request: dict[str, Any] = field(default_factory=dict)
        """Further keys of every request, e.g. {reasoning_effort: low}; null drops one."""
        price_in: float | None = None
        """Price of a million tokens read, in any currency; null = not stated. Both give the cost."""
        price_out: float | None = None
        """Price of a million tokens written; null = not stated."""

        def __post_init__(self) -> None:
            if not self.url.startswith(("http://", "https://")):
                raise ConfigError(f"judge.url={self.url} must start with http:// or https://")
            if self.parallel < 1 or self.retries < 0 or self.asks < 1 or self.max_tokens < 1:
                raise ConfigError("judge.parallel, asks, max_tokens must be at least 1, retries at least 0")

    config: Config

    def __init__(self, config: Judge.Config | None = None) -> None:
        super().__init__(config)
        c = self.config
        body = {"temperature": 0, "max_tokens": c.max_tokens, **c.request}
        self.endpoint = Endpoint(
            url=c.url,
            model=c.model,
            key_variable=c.key_variable,
            timeout=c.timeout,
            retries=c.retries,
            wait=c.wait,
            body={key: value for key, value in body.items() if value is not None},
        )
        self.counts: Counter[str] = Counter()
        self._lock = Lock()

    @classmethod
    def check(cls, config: Any, cell: Any, meta_model: nn.Module | None) -> Iterable[Problem]:
        yield from missing_key(config.key_variable, where="judge.key_variable")

    def prefer(self, duels: Sequence[Duel]) -> list[float]:
        known, reasons = self._read_kept(), list[str]()
        different = {self._key(duel): duel for duel in duels}
        with ThreadPoolExecutor(self.config.parallel) as pool:
            found = pool.map(lambda key: self._prefer(key, different[key], known, reasons), different)
            told = dict(zip(different, found, strict=True))
        verdicts = [told[self._key(duel)] for duel in duels]
        if duels and all(verdict != verdict for verdict in verdicts):
            raise HarnessError(f"judge {self.config.model}: no verdict on {len(duels)} duels; {reasons[0]}")
        return verdicts

    def facts(self) -> dict[str, Any]:
        usage = self.endpoint.usage
        return {
            "judge_model": self.config.model,
            "judge_usage": dict(usage),
            "judge_cost": self._cost(usage["prompt_tokens"], usage["completion_tokens"]),
            "verdicts": dict(self.counts),
        }

    def _cost(self, read: int, written: int) -> float | None:
        """What so many tokens cost; None where a price is not stated."""
        into, out = self.config.price_in, self.config.price_out
        return None if into is None or out is None else (read * into + written * out) / 1e6

    def _prefer(self, key: str, duel: Duel, known: dict[str, float], reasons: list[str]) -> float:
        if key in known:
            self._count("taken from an earlier attempt")
            return known[key]
        text = ""
        for _ in range(self.config.asks):
            try:
                asked = PROMPT.format(prompt=as_text(duel.prompt), first=duel.first, second=duel.second)
                text = self.endpoint.ask(asked)
            except EndpointError as error:
                if error.lasting:
                    raise HarnessError(f"judge.{error}") from error
                self._count("left out: no answer")
                reasons.append(f"judge.{error}")
                return NO_VERDICT
            verdict = read_verdict(text)
            self._keep(key, verdict)
            if verdict is not None:
                self._count("readable")
                return verdict
            self._count("unreadable answers")
        self._count("left out: unreadable")
        reasons.append(f"{self.config.model} at {self.config.url} gave no verdict: {text[:200]!r}")
        return NO_VERDICT

    def _key(self, duel: Duel) -> str:
        """What determines a verdict."""
        c = self.config
        parts = [c.url, c.model, c.max_tokens, c.request, as_text(duel.prompt), duel.first, duel.second]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _read_kept(self) -> dict[str, float]:
        """Verdicts of earlier attempts; what those have used counts here too."""
        if self.kept is None or not self.kept.exists():
            return {}
        found, text = {}, self.kept.read_text(errors="replace")
        if text and not text.endswith("\n"):  # or the next verdict would be lost with the cut line
            self.kept.write_text(f"{text}\n")
        usage: dict[str, int] = {}
        for line in text.splitlines():
            try:
                row = json.loads(line)
                key, verdict, used = row["duel"], row["verdict"], row["usage"]
            except (ValueError, KeyError, TypeError):  # cut by a kill, or no line of ours
                continue
            if verdict is not None:
                found[key] = verdict
            usage = used
        if not self.endpoint.usage:
            self.endpoint.usage.update(usage)
        return found

    def _keep(self, key: str, verdict: float | None) -> None:
        """Write down what an answer said and what all so far have used, paid for as it is."""
        if self.kept is None:
            return
        with self._lock:
            self.kept.parent.mkdir(parents=True, exist_ok=True)
            row = {"duel": key, "verdict": verdict, "usage": dict(self.endpoint.usage)}
            with self.kept.open("a") as file:
                file.write(json.dumps(row) + "\n")

    def _count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [OpenAi]
