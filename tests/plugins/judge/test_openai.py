"""The OpenAI judge against a local server that speaks its protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from harness_plugins.judge.openai import OpenAi

from harness.axes.judge import Duel
from harness.conformance import test_judge as suite
from harness.errors import HarnessError


@dataclass
class Endpoint:
    url: str
    seen: list[dict[str, Any]] = field(default_factory=list)
    failures: int = 0
    status: int = 503
    verdict: str | None = None


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """Prefers the longer answer, as a chat completion."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found.seen.append({**body, "path": self.path, "key": self.headers.get("Authorization")})
            if found.failures:
                found.failures -= 1
                self.send_error(found.status)
                return
            prompt = body["messages"][0]["content"]
            first = prompt.split("Answer A:\n")[1].split("\n\nAnswer B:")[0]
            second = prompt.split("Answer B:\n")[1].split("\n\nReply")[0]
            verdict = "tie" if len(first) == len(second) else "A" if len(first) > len(second) else "B"
            reply = {"choices": [{"message": {"content": found.verdict or verdict}}]}
            data = json.dumps(reply).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Endpoint(url=f"http://127.0.0.1:{server.server_port}/v1")
    Thread(target=server.serve_forever, daemon=True).start()
    yield found
    server.shutdown()
    server.server_close()


def judge_at(endpoint: Endpoint, **options: Any) -> OpenAi:
    return OpenAi(OpenAi.Config(url=endpoint.url, key_variable="", wait=0.01, **options))


def test_it_passes_the_suite_of_judges(endpoint: Endpoint) -> None:
    class Local(OpenAi):
        name = "local"
        online = False

        def __init__(self) -> None:
            super().__init__(judge_at(endpoint).config)

    for test in vars(suite).copy():
        if test.startswith("test_"):
            getattr(suite, test)(Local)


def test_the_request_is_a_chat_completion(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret")
    judge = OpenAi(OpenAi.Config(url=endpoint.url, model="big", key_variable="MY_KEY"))
    duel = Duel(prompt="Say hi", first="hi there", second="hi", checks={})
    assert judge.prefer([duel]) == [1.0]
    (seen,) = endpoint.seen
    assert (seen["path"], seen["model"], seen["key"]) == ("/v1/chat/completions", "big", "Bearer secret")
    assert "Say hi" in seen["messages"][0]["content"]


def test_a_busy_endpoint_is_asked_again(endpoint: Endpoint) -> None:
    endpoint.failures = 2
    duel = Duel(prompt="p", first="a", second="bb", checks={})
    assert judge_at(endpoint).prefer([duel]) == [0.0]
    assert len(endpoint.seen) == 3


def test_an_endpoint_that_refuses_is_an_error_at_once(endpoint: Endpoint) -> None:
    endpoint.failures, endpoint.status = 5, 401
    with pytest.raises(HarnessError, match=r"HTTP 401.*check url, key and model"):
        judge_at(endpoint).prefer([Duel(prompt="p", first="a", second="b", checks={})])
    assert len(endpoint.seen) == 1


def test_no_verdict_is_an_error_not_a_draw(endpoint: Endpoint) -> None:
    endpoint.verdict = "I cannot say"
    with pytest.raises(HarnessError, match="gave no verdict"):
        judge_at(endpoint).prefer([Duel(prompt="p", first="a", second="b", checks={})])


def test_no_network_is_a_clear_error() -> None:
    judge = OpenAi(OpenAi.Config(url="http://127.0.0.1:9", key_variable="", retries=0))
    with pytest.raises(HarnessError, match="does not answer"):
        judge.prefer([Duel(prompt="p", first="a", second="b", checks={})])


def test_a_missing_key_is_found_by_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (problem,) = OpenAi.check(OpenAi.Config(), None, None)
    assert "OPENAI_API_KEY" in str(problem)
    assert not list(OpenAi.check(OpenAi.Config(key_variable=""), None, None))
