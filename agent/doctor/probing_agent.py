"""The running agent, asked as a user would: its status, whether it is healthy, whether it is ready.

What answers may be anything that holds the port: answers are bounded in bytes and time, and read into a form.
"""

from __future__ import annotations

from dataclasses import replace

import httpx
import trio

from agent.client import STATUS, fetch, open_client, status_tree
from agent.config import Config
from agent.doctor.facts import DaemonFacts, DaemonState, Maybe, Trial, Unknown
from agent.doctor.probing_journal import find_holder
from agent.doctor.status_form import Status, read_status
from agent.errors import OperationError
from agent.http_read import InvalidAnswerError, NoAnswerError

ANSWER_S = 4.0
PROBES_S = 0.5
"""For health and readiness, once the status was answered."""
_UNASKED = Unknown("no agent answers")
_NO_PORT = "web.port is 0: the agent's port is not known"


class SilentError(OperationError):
    """Nothing answers at the agent's port, or not in time."""


async def ask_running(config: Config) -> Maybe[DaemonFacts]:
    """Ask the agent of these settings; cancellation leaves nothing behind."""
    if not config.web.port:
        return await _look_for_holder(config, SilentError(_NO_PORT))
    try:
        async with open_client(config) as client:
            status = await read_running(client)
            healthy, ready = await _probe(client, "/-/healthy", "/-/ready")
    except SilentError as error:
        return await _look_for_holder(config, error)
    except OperationError as error:
        return _unasked(DaemonState.STRANGER, str(error))
    return DaemonFacts(state=DaemonState.UP, detail="", status=status, healthy=healthy, ready=ready)


async def read_running(client: httpx.AsyncClient) -> Status:
    """The status of the agent that `client` leads to; cancellation closes the connection.

    Raises:
        SilentError: no whole answer in time.
        OperationError: what answers is no agent.
    """
    try:
        code, body = await fetch(client, STATUS, ANSWER_S)
    except NoAnswerError as error:
        raise SilentError(f"nothing answers at {client.base_url} ({error})") from error
    except InvalidAnswerError as error:
        raise OperationError(f"what answers at {client.base_url} is not an agent: {error}; see web.port") from error
    tree = status_tree(body) if code == httpx.codes.OK else None
    if tree is None:
        raise OperationError(f"what answers at {client.base_url} is not an agent; see web.port")
    return read_status(tree)


async def _look_for_holder(config: Config, error: SilentError) -> Maybe[DaemonFacts]:
    """Nobody answers: whether a process holds the journal tells an agent that is down from one that is silent."""
    holder = await trio.to_thread.run_sync(find_holder, config.journal_file)
    if isinstance(holder, Unknown):
        detail = f"{error}; {holder.reason}"
        return _unasked(DaemonState.DOWN, detail) if config.web.port else Unknown(detail)
    if holder is None:
        return _unasked(DaemonState.DOWN, str(error))
    if not config.web.port:
        return Unknown(str(error))
    return replace(_unasked(DaemonState.SILENT, str(error)), holder=holder)


async def _probe(client: httpx.AsyncClient, *paths: str) -> list[Trial]:
    """Ask for one line each, all at once; one that is late hides no other."""
    said: dict[str, Trial] = {path: Unknown(f"{path}: not answered within {PROBES_S:g} s") for path in paths}

    async def ask(path: str) -> None:
        said[path] = await _ask(client, path)

    with trio.move_on_after(PROBES_S):
        async with trio.open_nursery() as nursery:
            for path in paths:
                nursery.start_soon(ask, path)
    return list(said.values())


async def _ask(client: httpx.AsyncClient, path: str) -> Trial:
    """One line of a probe: None is yes, 503 is no; anything else is no answer to the question."""
    try:
        code, body = await fetch(client, path, ANSWER_S)
    except (NoAnswerError, InvalidAnswerError) as error:
        return Unknown(f"{path}: {error}")
    if code == httpx.codes.OK:
        return None
    if code != httpx.codes.SERVICE_UNAVAILABLE:
        return Unknown(f"{path}: answered status {code}")
    return body.decode(errors="replace").strip() or f"status {code}"


def _unasked(state: DaemonState, detail: str) -> DaemonFacts:
    return DaemonFacts(state=state, detail=detail, status=_UNASKED, healthy=_UNASKED, ready=_UNASKED)
