"""One question over HTTP: its answer is bounded in bytes, time and form, whoever gives it."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator

import httpx
import pytest
import trio
from trio.testing import MockClock

from agent.http_read import InvalidAnswerError, NoAnswerError, no_cookies, read_answer

URL = "http://127.0.0.1:1/x"


def answering(answer: httpx.Response | Exception) -> httpx.AsyncClient:
    def handle(request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        answer.extensions["asked"] = request
        return answer

    return httpx.AsyncClient(transport=httpx.MockTransport(handle))


async def chunks(*parts: bytes, apart_s: float = 0) -> AsyncIterator[bytes]:
    for part in parts:
        await trio.sleep(apart_s)
        yield part


async def test_an_answer_of_just_the_length_is_whole() -> None:
    answer = httpx.Response(200, content=chunks(b"ab", b"cd"))
    async with answering(answer) as client:
        got = await read_answer(client, URL, timeout_s=1, bytes_max=4, params={"a": "b"}, headers={"X": "y"})
    assert got == (200, b"abcd")
    asked = answer.extensions["asked"]
    assert (str(asked.url), asked.headers["X"], asked.headers["Accept-Encoding"]) == (f"{URL}?a=b", "y", "identity")


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (httpx.Response(200, content=chunks(b"abcde")), InvalidAnswerError, "its answer is longer than 4 bytes"),
        (
            httpx.Response(200, headers={"Content-Encoding": "gzip"}, content=chunks(gzip.compress(b""))),
            InvalidAnswerError,
            "content encoding that was not asked for",
        ),
        (httpx.ConnectError("refused"), NoAnswerError, "refused"),
        (httpx.ReadTimeout(""), NoAnswerError, "ReadTimeout"),
        (httpx.InvalidURL("no port"), NoAnswerError, "no port"),
    ],
)
async def test_what_is_no_answer(answer: httpx.Response | Exception, error: type[Exception], said: str) -> None:
    async with answering(answer) as client:
        with pytest.raises(error, match=said):
            await read_answer(client, URL, timeout_s=1, bytes_max=4)


async def test_the_deadline_is_that_of_the_whole_answer(autojump_clock: MockClock) -> None:
    drip = httpx.Response(200, content=chunks(*[b"x"] * 100, apart_s=1))
    async with answering(drip) as client:
        with pytest.raises(NoAnswerError, match="no answer within 5 s"):
            await read_answer(client, URL, timeout_s=5, bytes_max=1000)
    assert trio.current_time() == 5


@pytest.mark.parametrize(("wanted", "reason"), [(0, b""), (3, b"bec"), (100, b"because")])
async def test_of_a_refusal_no_more_is_read_than_is_wanted(wanted: int, reason: bytes) -> None:
    """Nor is its length a mistake of its own."""
    async with answering(httpx.Response(503, content=chunks(b"be", b"cause"))) as client:
        got = await read_answer(client, URL, timeout_s=1, bytes_max=1, reason_bytes_max=wanted)
    assert got == (503, reason)


async def test_a_jar_that_takes_no_cookies() -> None:
    def handle(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"Set-Cookie": "a=b; Path=/"}, content=chunks(b""))

    async with httpx.AsyncClient(transport=httpx.MockTransport(handle), cookies=no_cookies()) as client:
        await read_answer(client, URL, timeout_s=1, bytes_max=1)
        assert not client.cookies
