"""Connections to liteservers: which one is asked, when one is given up, when it is tried again.

Rules 1 to 3 of `contracts.chain` are kept here. pytoniq's client runs in the loop of `loop_thread`; after a
disconnect its calls raise AttributeError and its tasks end unseen, so everything that it raises is taken for a
lost connection.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from pytoniq import LiteClient
from pytoniq.liteclient.client import LiteServerError

from contracts.chain_values import LiteServer, ServersStanding
from contracts.errors import ChainConflictError, ChainUnavailableError, ContractsError, UnreadableStateError

BACKOFF_S_MIN, BACKOFF_S_MAX = 0.25, 5.0
LIE_S = 60.0
FRAME_BYTES_MAX = 1 << 24  # as in TON's own client (`adnl/adnl-ext-connection.cpp`)
WAITING_MAX = 256
"""Queries of one connection that wait for an answer, or that one may still come for after they were given up."""

_log = logging.getLogger(__name__)
# Every call with its data, every lost connection with a traceback: the call that suffers from it raises.
_SILENT = logging.getLogger("pytoniq.liteclient")
_SILENT.setLevel(logging.CRITICAL)
_T = TypeVar("_T")
Ask = Callable[[LiteClient], Awaitable[_T]]


class Servers:
    """The connections, and whose turn it is. Lives in pytoniq's loop."""

    def __init__(self, connections: Sequence[Connection]) -> None:
        self._connections = list(connections)
        self._conflicts = 0

    def standing(self) -> ServersStanding:
        """How the servers stand now; may be called from any thread."""
        failing = sum(connection.is_failing for connection in self._connections)
        return ServersStanding(known=len(self._connections), failing=failing, conflicts=self._conflicts)

    async def ask(self, ask: Ask[_T]) -> _T:
        """Ask one server after the other until one answers; the one that did is asked first next time."""
        failure: ContractsError = ChainUnavailableError("no liteserver is due for another try")
        for connection in list(self._connections):
            try:
                answer = await connection.ask(ask)
            except ChainConflictError as error:
                self._conflicts += 1
                _log.warning("%s: %s", connection.server, error)
                failure = error
            except UnreadableStateError as error:  # another server may show a better one
                if not isinstance(failure, ChainConflictError):
                    failure = error
            except ChainUnavailableError as error:
                if isinstance(failure, ChainUnavailableError):
                    failure = error
            else:
                self._connections.remove(connection)
                self._connections.insert(0, connection)
                return answer
        raise failure


class Connection:
    """One server: connected when needed, dropped when it fails, left alone for a while after that."""

    def __init__(self, server: LiteServer, timeout_s: float) -> None:
        self.server = server
        self.is_failing = False
        """Whether it lied, or did not answer, when it was asked last."""
        self._timeout_s = timeout_s
        self._client: LiteClient | None = None
        self._lock = asyncio.Lock()
        self._backoff_s = 0.0
        self._not_before = 0.0

    async def ask(self, ask: Ask[_T]) -> _T:
        """Raises what `ask` finds out (`ContractsError`), or `ChainUnavailableError`."""
        client = None
        try:
            client = await self._connected()
            async with asyncio.timeout(self._timeout_s):
                answer = await ask(client)
            self.is_failing = False
            return answer
        except ChainConflictError:
            self.is_failing = True
            await self._drop(client, LIE_S)
            raise
        except ContractsError:
            raise
        except LiteServerError as error:
            raise ChainUnavailableError(f"{self.server}: {error.message[:200]} ({error.code})") from error
        except Exception as error:
            self.is_failing = True
            await self._drop(client)
            reason = "no answer in time" if isinstance(error, TimeoutError) else f"{_reason(error)}"
            raise ChainUnavailableError(f"{self.server}: {reason}") from error

    async def _connected(self) -> LiteClient:
        async with self._lock:
            client = self._client
            if client is not None and client.inited and not client.updater.done():
                return client
            wait_s = self._not_before - asyncio.get_running_loop().time()
            if wait_s > 0:
                raise ChainUnavailableError(f"{self.server}: no connection; next try in {wait_s:.1f} s")
            if client is not None:
                await self.close()
            self._backoff_s = min(max(2 * self._backoff_s, BACKOFF_S_MIN), BACKOFF_S_MAX)
            try:
                client = await self._connect()
            except Exception:
                self._leave_alone(self._backoff_s)
                raise
            self._backoff_s = 0.0
            self._client = client
            return client

    async def _connect(self) -> LiteClient:
        key = base64.b64encode(self.server.public_key).decode()
        client: LiteClient | None = None
        try:
            # Trust level 2 turns pytoniq's own checks off: every answer is checked in `chain_proofs`.
            client = _Client(self.server.host, self.server.port, key, timeout=self._timeout_s, trust_level=2)
            async with asyncio.timeout(self._timeout_s):
                await client.connect()
        except BaseException as error:
            if client is not None:
                await _close(client)
            if isinstance(error, Exception) and not isinstance(error, OSError):
                raise OSError(0, "closed at once; check its address and its key") from error
            raise
        return client

    async def _drop(self, client: LiteClient | None, pause_s: float = BACKOFF_S_MIN) -> None:
        """Close the connection that failed, unless another call has done so already."""
        async with self._lock:
            if client is not None and client is self._client:
                self._leave_alone(pause_s)
                await self.close()

    def _leave_alone(self, pause_s: float) -> None:
        self._not_before = asyncio.get_running_loop().time() + pause_s

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await _close(client)


class _Client(LiteClient):  # type: ignore[misc]  # pytoniq has no types
    """pytoniq's client, bounded: alone it reads a frame of any size that a server announces, remembers each query that
    was never answered (5 MB a day of a server that answers all but its poll), and logs every call.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.logger = _SILENT
        self.tasks = _Waiting()

    async def receive(self, data_len: int) -> bytes:
        if data_len > FRAME_BYTES_MAX:
            raise ConnectionResetError(f"a frame of {data_len} bytes")
        frame: bytes = await super().receive(data_len)
        return frame


class _Waiting(dict[str, "asyncio.Future[Any]"]):
    """What waits for an answer, by query; what was given up is forgotten when there is much of it.

    An answer that comes even after that closes the connection: pytoniq's listener does not expect it.
    """

    def __setitem__(self, query: str, waits: asyncio.Future[Any]) -> None:
        if len(self) >= WAITING_MAX:
            for gone in [known for known, future in self.items() if future.done()]:
                del self[gone]
        super().__setitem__(query, waits)


def _reason(error: Exception) -> str:
    """An operating system's error in its own words, any other by its type."""
    if isinstance(error, OSError) and error.strerror:
        # asyncio words the usual errors anew, with the address once more.
        is_usual = error.errno is not None and error.errno in errno.errorcode
        return (os.strerror(error.errno or 0) if is_usual else error.strerror).lower()
    return f"{error!r:.120}"


async def _close(client: LiteClient) -> None:
    with contextlib.suppress(Exception):
        await client.close()


async def close_all(connections: Sequence[Connection]) -> None:
    await asyncio.gather(*(connection.close() for connection in connections))
