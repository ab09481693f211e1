"""Asks the agent that runs on this host, at its listener, on behalf of the command line.

What answers may be anything that holds the port: the answer is bounded, and refused unless it has the form expected.
"""

from __future__ import annotations

import json
from typing import Any

import httpx

from agent.config import Config
from agent.errors import OperationError

TIMEOUT_S = 5
ANSWER_BYTES_MAX = 64 << 20


class NoAgentError(OperationError):
    """Nothing answers where the agent should listen: start it, or do without it."""


class NotThereError(OperationError):
    """The agent does not have what was asked for, perhaps not yet: try again."""


def ask_agent(config: Config, path: str) -> bytes:
    """What the running agent answers at `path`.

    Raises:
        NoAgentError: nothing answers.
        NotThereError: it does not have that.
        OperationError: it refuses, or its answer is too long.
    """
    host = f"[{config.web.host}]" if ":" in config.web.host else config.web.host
    url = f"http://{host}:{config.web.port}{path}"
    try:
        with httpx.stream("GET", url, timeout=TIMEOUT_S, trust_env=False) as response:
            content = bytearray()
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > ANSWER_BYTES_MAX:
                    raise OperationError(f"{url}: the answer is longer than {ANSWER_BYTES_MAX} bytes")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise NoAgentError(f"no agent answers at {url}; is it running? ({error})") from error
    if response.status_code != httpx.codes.OK:
        refusal = NotThereError if response.status_code == httpx.codes.NOT_FOUND else OperationError
        raise refusal(f"{url}: {content[:200].decode(errors='replace').strip()}")
    return bytes(content)


def ask_status(config: Config) -> dict[str, Any]:
    """The running agent's status.

    Raises:
        NoAgentError: nothing answers.
        OperationError: what answers is not an agent.
    """
    try:
        status = json.loads(ask_agent(config, "/-/status"))
    except ValueError:
        status = None
    if not isinstance(status, dict) or "node_key" not in status:
        raise OperationError(f"what answers at {config.web.host}:{config.web.port} is not an agent; see web.port")
    return status
