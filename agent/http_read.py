"""One question over HTTP to something of this host, and an answer that is bounded as a whole.

Whoever answers is untrusted: a stranger at the agent's port, a guest, an engine.

1. The deadline is that of the whole conversation: an answer that drips ends as one that never comes does.
2. Bytes are taken as they come. A content encoding is not asked for, and refused: a small answer could unfold beyond
   every bound.
3. Of an answer that is no success no more is read than the caller wants for the reason.

What an answer means is the caller's to say, and so are the errors that a user sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx
import trio

from agent.errors import AgentError

_IDENTITY = {"Accept-Encoding": "identity"}


class NoAnswerError(AgentError):
    """Nobody answers, or not whole in time: try again."""


class InvalidAnswerError(AgentError):
    """What answers answers with what it should not."""


def no_cookies() -> CookieJar:
    """A jar that takes none: one that did would be without bound, and the same for all ports of this host."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))


async def read_answer(
    client: httpx.AsyncClient,
    url: str,
    *,
    timeout_s: float,
    bytes_max: int,
    reason_bytes_max: int = 0,
    params: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, bytes]:
    """Status code and body at `url`: at most `bytes_max`, within `timeout_s`. Cancellation closes the connection.

    `client` must not follow redirects, nor take proxies from the environment. Of another status than 200 the body is
    cut off after `reason_bytes_max`.

    Raises:
        NoAnswerError: no whole answer in time.
        InvalidAnswerError: it is longer, or encoded.
    """
    asked = {**_IDENTITY, **(headers or {})}
    try:
        with trio.fail_after(timeout_s):
            async with client.stream("GET", url, params=params, headers=asked, timeout=None) as response:
                if response.status_code != httpx.codes.OK:
                    return response.status_code, await _beginning(response, reason_bytes_max)
                return response.status_code, await _whole(response, bytes_max)
    except trio.TooSlowError:
        raise NoAnswerError(f"no answer within {timeout_s:g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise NoAnswerError(str(error) or type(error).__name__) from error


async def _whole(response: httpx.Response, bytes_max: int) -> bytes:
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise InvalidAnswerError("answered with a content encoding that was not asked for")
    body = await _beginning(response, bytes_max + 1)
    if len(body) > bytes_max:
        raise InvalidAnswerError(f"its answer is longer than {bytes_max} bytes")
    return body


async def _beginning(response: httpx.Response, length: int) -> bytes:
    """The first `length` bytes, or all there are."""
    if not length:
        return b""
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) >= length:
            break
    return bytes(body[:length])
