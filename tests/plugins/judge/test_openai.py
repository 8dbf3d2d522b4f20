"""The OpenAI judge against a local server that speaks its protocol."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
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
    broken: str = ""
    """Text of a prompt to which the answer is always an error."""
    retry_after: str = ""
    odd: bytes = b""
    """The first reply, in place of a completion; half of it comes where `breaks`."""
    breaks: bool = False
    drip: float = 0.0
    """Seconds between the bytes of the first reply, which goes on for ever."""


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """Prefers the longer answer, as a chat completion."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found.seen.append({**body, "path": self.path, "key": self.headers.get("Authorization")})
            prompt = body["messages"][0]["content"]
            if found.failures or (found.broken and found.broken in prompt):
                found.failures = max(0, found.failures - 1)
                self.send_response(found.status)
                if found.retry_after:
                    self.send_header("Retry-After", found.retry_after)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if found.drip:
                wait, found.drip = found.drip, 0.0
                self.send_response(200)
                self.end_headers()
                with contextlib.suppress(OSError):
                    for _ in range(200):
                        self.wfile.write(b" ")
                        time.sleep(wait)
                return
            if found.odd:
                odd, found.odd = found.odd, b""
                self.send_response(200)
                self.send_header("Content-Length", str(len(odd) * (2 if found.breaks else 1)))
                self.end_headers()
                self.wfile.write(odd)
                return
            first = prompt.split("Answer A:\n")[1].split("\n\nAnswer B:")[0]
            second = prompt.split("Answer B:\n")[1].split("\n\nReply")[0]
            verdict = "tie" if len(first) == len(second) else "A" if len(first) > len(second) else "B"
            reply = {
                "choices": [{"message": {"content": found.verdict or verdict}}],
                "usage": {"prompt_tokens": 100, "completion_tokens": 2},
            }
            data = json.dumps(reply).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Endpoint(url=f"http://127.0.0.1:{server.server_port}/v1")
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
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


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("A", 1.0),
        ("b.", 0.0),
        ("**B**", 0.0),
        ("A tie.", 0.5),
        ("It's a tie", 0.5),
        ("Both are equally good.", 0.5),
        ("Answer: B", 0.0),
        ("Answer A is better.", 1.0),
        ("A is better than B because it is short.", 1.0),
        ("The better answer is B", 0.0),
        ("After some thought, my final verdict is: [[A]]", 1.0),
        ("[[C]]", 0.5),
        ("A hard choice.", None),
        ("B is worse than A", 1.0),
        ("A > B", 1.0),
        ("My final verdict is: [[B>>A]]", 0.0),
        ("\uff21", 1.0),
        ('{"preferred": "a"}', 1.0),
        ("A and B are the same.", 0.5),
        ("A, B, or tie", None),
        ("I reply with A, B or a tie: B", 0.0),
        ("[[A=B]]", 0.5),
        ("A\n\nIt is more helpful than B.", 1.0),
        ("I cannot say", None),
        ("A is not better than B", None),
        ("Answer A is no worse than B", None),
        ("B. Both are equally accurate, but B is clearer.", 0.0),
        ("A, because it is equally short but right", 1.0),
        ("B, since A is not equal in quality", 0.0),
        ("Tie. A is brief, B is exact.", 0.5),
        ("It's not a tie: A wins", 1.0),
        ("", None),
        ("answer: b", 0.0),
        ("Winner: a", 1.0),
        ('{"reason": "short", "winner": "b"}', 0.0),
        ("assistant a is better", 1.0),
        ("Output (b)", 0.0),
        ("\\boxed{A}", 1.0),
        ("Score A: 9/10\nScore B: 4/10\nAnswer: A", 1.0),
        ("<think>A is longer, so A.</think>\nB", 0.0),
        ("<think>A is longer, so", None),
        ("I prefer B to A.", 0.0),
        ("I prefer answer A over answer B", 1.0),
        ("A beats B", 1.0),
        ("B loses to A", 1.0),
        ("A is much, much better", 1.0),
        ("A is good, B is better", 0.0),
        ("I think that A's answer is better than B's", 1.0),
        ("Answer B is more accurate than answer A", 0.0),
        ("Answer A is less helpful than answer B", None),
        ("Answer B, not A", 0.0),
        ("not A", None),
        ("A, B", None),
        ("A/B", None),
        ("Between A and B, A is more helpful", None),
        ("B≫A", 0.0),
        ("A≈B", 0.5),
        ("As an AI, I cannot judge", None),
        ("I'm sorry, I can't help with that.", None),
    ],
)
def test_verdicts_are_read_as_people_read_them(text: str, verdict: float | None) -> None:
    from harness_plugins.judge._verdicts import read_verdict

    assert read_verdict(text) == verdict


def duels(number: int) -> list[Duel]:
    return [Duel(prompt=f"p{i}", first="longer", second="short", checks={}) for i in range(number)]


def test_one_lasting_failure_leaves_out_one_duel_and_keeps_the_rest(endpoint: Endpoint) -> None:
    endpoint.broken, endpoint.status = "p3\n", 500
    judge = judge_at(endpoint, retries=1)
    verdicts = judge.prefer(duels(6))
    assert [None if math.isnan(v) else v for v in verdicts] == [1.0, 1.0, 1.0, None, 1.0, 1.0]
    assert judge.facts()["verdicts"] == {"readable": 5, "left out: no answer": 1}


def test_paid_verdicts_survive_a_stopped_evaluation(endpoint: Endpoint, tmp_path: Path) -> None:
    first = judge_at(endpoint)
    first.kept = tmp_path / "verdicts.jsonl"
    first.prefer(duels(4))
    with first.kept.open("a") as file:
        file.write('{"duel": "cut')
    second = judge_at(endpoint)
    second.kept = first.kept
    assert second.prefer(duels(6)) == [1.0] * 6
    assert len(endpoint.seen) == 6, "the first four are not paid for again"


def test_what_an_interrupted_evaluation_has_used_is_counted_on(endpoint: Endpoint, tmp_path: Path) -> None:
    """Unreadable answers are paid for too, and a duel that comes twice is asked once."""
    kept = tmp_path / "verdicts.jsonl"
    endpoint.verdict = "I cannot say"
    first = judge_at(endpoint, asks=1)
    first.kept = kept
    with pytest.raises(HarnessError, match="no verdict on 2 duels"):
        first.prefer(duels(2))
    endpoint.verdict = None
    for number, requests in ((3, 5), (5, 7), (5, 7)):
        judge = judge_at(endpoint, price_in=1e6, price_out=0.0)
        judge.kept = kept
        assert judge.prefer([*duels(number), *duels(number)]) == [1.0] * 2 * number
        assert judge.facts()["judge_usage"]["requests"] == requests == len(endpoint.seen)
        assert judge.facts()["judge_cost"] == 100 * requests


def test_a_reply_that_drips_is_given_up(endpoint: Endpoint) -> None:
    endpoint.drip = 0.05
    judge = judge_at(endpoint, timeout=0.2)
    began = time.perf_counter()
    assert judge.prefer(duels(1)) == [1.0]
    assert time.perf_counter() - began < 2
    assert judge.facts()["judge_usage"]["failed_attempts"] == 1


def test_usage_and_cost_are_counted(endpoint: Endpoint) -> None:
    judge = judge_at(endpoint, price_in=3.0, price_out=50.0, max_tokens=64, request={"temperature": None})
    judge.prefer(duels(10))
    facts = judge.facts()
    assert facts["judge_usage"] == {"requests": 10, "prompt_tokens": 1000, "completion_tokens": 20}
    assert facts["judge_cost"] == pytest.approx((1000 * 3.0 + 20 * 50.0) / 1e6)
    assert endpoint.seen[0]["max_tokens"] == 64
    assert "temperature" not in endpoint.seen[0]


def test_the_endpoint_says_how_long_to_wait(endpoint: Endpoint) -> None:
    endpoint.failures, endpoint.status, endpoint.retry_after = 1, 429, "0.3"
    began = time.perf_counter()
    assert judge_at(endpoint).prefer(duels(1)) == [1.0]
    assert time.perf_counter() - began >= 0.3


COMPLETION = {"choices": [{"message": {"content": "A"}}]}


@pytest.mark.parametrize(
    ("odd", "breaks"),
    [
        (b'{"choices": [{"mess', False),
        (b"[]", False),
        (b'"A"', False),
        (b"<html>busy</html>", False),
        (b'{"error": {"message": "busy"}}', False),
        (b'{"choices": [{"message": null}]}', False),
        (b'{"choices": [{"message": {"content": {"a": 1}}}]}', False),
        (json.dumps(COMPLETION).encode(), True),
    ],
)
def test_what_is_no_completion_is_asked_for_again(endpoint: Endpoint, odd: bytes, breaks: bool) -> None:
    endpoint.odd, endpoint.breaks = odd, breaks
    judge = judge_at(endpoint)
    assert judge.prefer([Duel(prompt="p", first="a", second="longer", checks={})]) == [0.0]
    assert judge.facts()["judge_usage"]["failed_attempts"] == 1


def test_a_text_in_parts_is_read_and_odd_usage_is_not_counted(endpoint: Endpoint) -> None:
    content = [{"type": "text", "text": "B"}]
    endpoint.odd = json.dumps({"choices": [{"message": {"content": content}}], "usage": "some"}).encode()
    judge = judge_at(endpoint)
    assert judge.prefer(duels(1)) == [0.0]
    assert judge.facts()["judge_usage"] == {"requests": 1, "prompt_tokens": 0, "completion_tokens": 0}


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_text_that_is_refused_leaves_out_its_duel_alone(endpoint: Endpoint, status: int) -> None:
    endpoint.broken, endpoint.status = "p1\n", status
    verdicts = judge_at(endpoint).prefer(duels(3))
    assert [None if math.isnan(v) else v for v in verdicts] == [1.0, None, 1.0]
    assert len(endpoint.seen) == 3, "it is not asked again"
    with pytest.raises(HarnessError, match=f"no verdict on 1 duels.*HTTP {status}"):
        judge_at(endpoint).prefer(duels(2)[1:])


def test_the_endpoint_may_say_until_when_to_wait_and_may_say_nonsense(endpoint: Endpoint) -> None:
    until = datetime.now(UTC) + timedelta(seconds=2)
    for said, least in ((format_datetime(until, usegmt=True), 0.5), ("nan", 0.0), ("soon", 0.0)):
        endpoint.failures, endpoint.status, endpoint.retry_after = 1, 429, said
        began = time.perf_counter()
        assert judge_at(endpoint).prefer(duels(1)) == [1.0]
        assert time.perf_counter() - began >= least


def test_a_verdict_after_a_cut_line_is_kept(endpoint: Endpoint, tmp_path: Path) -> None:
    kept = tmp_path / "verdicts.jsonl"
    kept.write_bytes(b'7\n{"duel": "of another form"}\n{"duel": "cut\xff')
    for _ in range(2):
        judge = judge_at(endpoint)
        judge.kept = kept
        assert judge.prefer(duels(1)) == [1.0]
    assert len(endpoint.seen) == 1
