"""A language model behind an OpenAI-compatible chat endpoint, asked patiently and accounted for."""

from __future__ import annotations

import email.utils
import http.client
import json
import math
import os
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from harness.data.messages import text_of_content
from harness.errors import ConfigError, DataError, HarnessError
from harness.method import Problem

AGAIN = (408, 409, 425, 429)
"""HTTP answers below 500 after which asking again may help."""
OF_THIS_REQUEST = (400, 413, 422)
"""HTTP answers to what one request says, e.g. a text that is too long or that a filter stops."""
LONGEST_WAIT = 300.0
"""Most seconds that an endpoint may ask us to wait."""


class EndpointError(HarnessError):
    """The endpoint does not answer a request; `lasting` where it would answer no other either."""

    def __init__(self, message: str, *, lasting: bool) -> None:
        super().__init__(message)
        self.lasting = lasting


@dataclass(kw_only=True)
class Endpoint:
    """One model at one endpoint.

    State: `usage` counts requests, tokens read and written, and attempts that failed
    Raises: ConfigError where the address is none
    """

    url: str
    model: str
    key_variable: str = "OPENAI_API_KEY"
    timeout: float = 60.0
    """Seconds to wait for one answer."""
    retries: int = 3
    """Further attempts after a refused or failed request."""
    wait: float = 2.0
    """Seconds before the first retry; doubles with each, unless the endpoint says how long."""
    body: dict[str, Any] = field(default_factory=dict)
    """Further keys of every request, e.g. {temperature: 0, max_tokens: 8}."""
    usage: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"url={self.url} must start with http:// or https://")
        self._lock = Lock()

    def ask(self, prompt: str, history: Sequence[dict[str, str]] = ()) -> str:
        """The endpoint's answer to one message; refused and failed requests are tried again.

        Raises: EndpointError saying why there is none
        """
        url = f"{self.url.rstrip('/')}/chat/completions"
        messages = [*history, {"role": "user", "content": prompt}]
        content = json.dumps({"model": self.model, "messages": messages, **self.body}).encode()
        headers = {"Content-Type": "application/json"}
        if self.key_variable:
            headers["Authorization"] = f"Bearer {os.environ.get(self.key_variable, '')}"
        for attempt in range(self.retries + 1):
            wait = self.wait * 2**attempt
            try:
                request = urllib.request.Request(url, content, headers)
                with urllib.request.urlopen(request, timeout=self.timeout) as response:
                    return self._read(json.loads(_all_of(response, self.timeout)))
            except urllib.error.HTTPError as error:
                reason = f"HTTP {error.code}: {_beginning(error)}"
                again = error.code in AGAIN or error.code >= 500
                lasting = not again and error.code not in OF_THIS_REQUEST
                wait = _asked_wait(error.headers.get("Retry-After"), wait)
            except (OSError, http.client.HTTPException, ValueError) as error:
                reason, again, lasting = f"{type(error).__name__}: {error}", True, False
            self._count(failed_attempts=1)
            if not again or attempt == self.retries:
                break
            time.sleep(wait)
        raise EndpointError(
            f"url={url} does not answer ({reason}); check url, key and model", lasting=lasting
        )

    def _read(self, reply: Any) -> str:
        """The text of a reply, counted.

        Raises: ValueError where it is no chat completion
        """
        try:
            text = text_of_content(reply["choices"][0]["message"]["content"], "the reply")
        except (KeyError, IndexError, TypeError, DataError) as error:
            raise ValueError(f"no chat completion: {json.dumps(reply)[:200]}") from error
        used = reply.get("usage")
        self._count(
            requests=1,
            prompt_tokens=_number(used, "prompt_tokens"),
            completion_tokens=_number(used, "completion_tokens"),
        )
        return text

    def _count(self, **numbers: int) -> None:
        with self._lock:
            self.usage.update(numbers)


def _all_of(response: Any, timeout: float) -> bytes:
    """The body of a reply.

    Raises: TimeoutError where it goes on coming for longer than `timeout` seconds, however little at a time
    """
    began, parts = time.monotonic(), [b""]
    while part := response.read1():
        parts.append(part)
        if time.monotonic() - began > timeout:
            raise TimeoutError(f"the reply was not whole after {timeout:g} s")
    body = b"".join(parts)
    stated = response.headers.get("Content-Length")
    if stated is not None and len(body) < int(stated):
        raise http.client.IncompleteRead(body, int(stated) - len(body))
    return body


def _number(used: Any, key: str) -> int:
    """A count of tokens; 0 where the endpoint states none, or no number."""
    value = used.get(key) if isinstance(used, dict) else None
    return int(value) if isinstance(value, int | float) and math.isfinite(value) else 0


def missing_key(variable: str, *, where: str) -> Iterable[Problem]:
    """A problem where the environment has no key of that name."""
    if variable and not os.environ.get(variable):
        yield Problem(
            where=where,
            message=f"the environment has no {variable}; set it, or {where}='' for an endpoint without a key",
        )


def _beginning(error: urllib.error.HTTPError) -> str:
    """What a refusal says first; nothing where the connection breaks."""
    try:
        return " ".join(error.read(200).decode(errors="replace").split())
    except (OSError, http.client.HTTPException):
        return ""


def _asked_wait(header: str | None, otherwise: float) -> float:
    """Seconds that a Retry-After header asks for: a number, or a date."""
    if not header:
        return otherwise
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except (TypeError, ValueError):
            return otherwise
    return otherwise if math.isnan(seconds) else min(max(seconds, 0.0), LONGEST_WAIT)
