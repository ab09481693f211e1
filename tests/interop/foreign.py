"""The other implementation: a js-libp2p peer as a process that is told what to do in lines of JSON (`peer.mjs`)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from pool_fixture import POOL, key

HERE = Path(__file__).parent
ANSWER_TIMEOUT_S = 30.0


class ForeignError(Exception):
    """What was asked of the other implementation failed there; the message is its own."""


class Foreign:
    """Participant `i` of the pool. Made by `open_foreign`."""

    def __init__(self, i: int, process: trio.Process) -> None:
        self.node_key = key(i).public
        self._process = process
        self._received = b""
        self._turn = trio.Lock()

    async def do(self, name: str, **values: Any) -> Any:
        """Have it do something; returns what it answers (bytes are hex).

        Raises:
            ForeignError: it failed, or ended.
            trio.TooSlowError: it did not answer.
        """
        assert self._process.stdin is not None
        async with self._turn:
            with trio.fail_after(ANSWER_TIMEOUT_S):
                await self._process.stdin.send_all(json.dumps({"do": name, **values}).encode() + b"\n")
                answer: Mapping[str, Any] = json.loads(await self._line())
        if "error" in answer:
            raise ForeignError(f"{name}: {answer['error']}")
        return answer["result"]

    async def _line(self) -> bytes:
        assert self._process.stdout is not None
        while b"\n" not in self._received:
            chunk = await self._process.stdout.receive_some(65536)
            if not chunk:
                raise ForeignError("the process ended")
            self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        return line


@asynccontextmanager
async def open_foreign(
    i: int, participants: Sequence[bytes], gossipsub: Mapping[str, object] | None = None
) -> AsyncIterator[Foreign]:
    """Run participant `i` for the duration of the block; `gossipsub` are settings of its library."""
    settings = {
        "seed": key(i).seed.hex(),
        "network": POOL.network,
        "account": POOL.account.hex(),
        "participants": [node_key.hex() for node_key in participants],
        "gossipsub": dict(gossipsub or {}),
    }
    command = ["node", str(HERE / "peer.mjs"), json.dumps(settings)]
    process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield Foreign(i, process)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
