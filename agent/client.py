"""Asks the agent that runs on this host, at its listener, on behalf of the command line.

What answers may be anything that holds the port: the answer is bounded in bytes and time, and refused unless it has
the form expected.

The listener serves this host by its name alone (`agent.web`, rule 2), wherever it listens: so it is asked as
localhost, and at loopback where it listens on every address.
"""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import httpx
import trio

from agent.config import Config
from agent.errors import OperationError
from agent.http_read import InvalidAnswerError, NoAnswerError, no_cookies, read_answer

STATUS = "/-/status"
TIMEOUT_S = 10.0
ANSWER_BYTES_MAX = 64 << 20
REASON_BYTES_MAX = 400


class NoAgentError(OperationError):
    """Nothing answers where the agent should listen: start it, or do without it."""


class NotThereError(OperationError):
    """The agent does not have what was asked for, perhaps not yet: try again."""


def ask_agent(config: Config, path: str) -> bytes:
    """What the running agent answers at `path`, within `TIMEOUT_S`. It blocks: a trio task asks from a thread.

    Raises:
        NoAgentError: nothing answers.
        NotThereError: it does not have that.
        OperationError: it refuses, or its answer is too long.
    """

    async def ask() -> tuple[int, bytes]:
        async with open_client(config) as client:
            return await fetch(client, path, TIMEOUT_S)

    url = f"{url_of(config)}{path}"
    try:
        status, content = trio.run(ask)
    except NoAnswerError as error:
        raise NoAgentError(f"no agent answers at {url}; is it running? ({error})") from error
    except InvalidAnswerError as error:
        raise OperationError(f"{url}: {error}") from error
    if status != httpx.codes.OK:
        refusal = NotThereError if status == httpx.codes.NOT_FOUND else OperationError
        raise refusal(f"{url}: {_reason(status, content)}")
    return content


def _reason(status: int, content: bytes) -> str:
    """Why it refuses, in its own words; whatever answers with a page of its own is no agent."""
    text = content.decode(errors="replace").strip()
    if text.startswith("<"):
        return f"answered status {status} with a page: what listens there is not an agent; see web.port"
    return text or f"answered status {status}"


def ask_status(config: Config) -> dict[str, Any]:
    """The running agent's status.

    Raises:
        NoAgentError: nothing answers.
        OperationError: what answers is not an agent.
    """
    status = status_tree(ask_agent(config, STATUS))
    if status is None:
        raise OperationError(f"what answers at {config.web.host}:{config.web.port} is not an agent; see web.port")
    return status


def status_tree(body: bytes) -> dict[str, Any] | None:
    """An agent's status; None if it is something else."""
    try:
        tree = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return tree if isinstance(tree, dict) and "node_key" in tree else None


def url_of(config: Config) -> str:
    """Where the agent of these settings answers."""
    address = ipaddress.ip_address(config.web.host)  # settings with another one are refused when they are read
    if address.is_unspecified:
        address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    return f"http://[{address}]:{config.web.port}" if address.version == 6 else f"http://{address}:{config.web.port}"


def open_client(config: Config) -> httpx.AsyncClient:
    """What asks it, under the name that its listener serves; the caller closes it."""
    headers = {"Host": "localhost"}
    return httpx.AsyncClient(trust_env=False, base_url=url_of(config), headers=headers, cookies=no_cookies())


async def fetch(client: httpx.AsyncClient, path: str, timeout_s: float) -> tuple[int, bytes]:
    """Status code and body at `path`; of a refusal its first words. Cancellation closes the connection.

    Raises:
        NoAnswerError, InvalidAnswerError: as `agent.http_read` has it.
    """
    return await read_answer(
        client, path, timeout_s=timeout_s, bytes_max=ANSWER_BYTES_MAX, reason_bytes_max=REASON_BYTES_MAX
    )
