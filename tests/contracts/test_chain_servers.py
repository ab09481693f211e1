"""The chain client and servers that are behind, answer something else, or flood."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from contracts import chain_servers
from contracts.chain import LiteServer, open_chain
from contracts.chain_servers import FRAME_BYTES_MAX
from contracts.chain_values import ServersStanding
from contracts.devchain import liteserver
from contracts.devchain.adnl import HANDSHAKE_BYTES, ServerKey
from contracts.devchain.node import Node
from contracts.devchain.queries import answer
from contracts.errors import ChainConflictError, ChainUnavailableError
from tests.contracts.chain_scene import NOBODY, SEED, serving

WAIT_S = 20
_Answer = Callable[[Node, str, dict[str, Any], int], bytes]


def instead(monkeypatch: pytest.MonkeyPatch, name: str, reply: _Answer) -> None:
    """Make the liteservers in this process answer the query `name` with `reply`."""

    def choose(node: Node, asked: str, fields: dict[str, Any], now: int) -> bytes:
        return (reply if asked == f"liteServer.{name}" else answer)(node, asked, fields, now)

    monkeypatch.setattr(liteserver, "answer", choose)


async def test_a_server_that_is_behind_does_not_take_the_head_back(tmp_path: Path) -> None:
    """Another server has shown a newer block to `wait_next`; the one that lags is not the head."""
    async with serving(tmp_path, block_s=60) as server, open_chain([server]) as chain:
        block = await chain.head()
        ahead = dataclasses.replace(block, seqno=block.seqno + 1, root_hash=bytes(32))
        assert chain._newest(ahead) == ahead
        assert chain._newest(block) == ahead
        with pytest.raises(ChainUnavailableError, match="behind"):
            await chain.head()
        with pytest.raises(ChainUnavailableError, match="behind"):
            await chain.account(NOBODY)


async def test_servers_that_fail_or_lie_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = LiteServer(host="127.0.0.1", port=1, public_key=bytes(32))
    async with serving(tmp_path, block_s=60) as server, open_chain([nobody, server]) as chain:
        assert chain.servers() == ServersStanding(known=2, failing=0, conflicts=0)
        block = await chain.head()
        assert chain.servers() == ServersStanding(known=2, failing=1, conflicts=0)
        chain._head = dataclasses.replace(block, root_hash=bytes(32))
        with pytest.raises(ChainConflictError):
            await chain.head()
        assert chain.servers() == ServersStanding(known=2, failing=2, conflicts=1)


async def test_queries_that_were_given_up_are_forgotten(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As many as wait are remembered, however many were never answered."""
    monkeypatch.setattr(chain_servers, "WAITING_MAX", 3)

    async def give_up(client: Any) -> None:
        """Send a query of which no answer is known, and wait no longer."""
        before = dict(client.tasks)
        for number in range(9):
            client.tasks[f"unanswered {number}"] = asyncio.get_running_loop().create_future()
            client.tasks[f"unanswered {number}"].cancel()
        assert len(client.tasks) <= 3 + len(before)
        assert before.items() <= client.tasks.items()

    async with serving(tmp_path, block_s=60) as server, open_chain([server]) as chain:
        await chain._ask(give_up)
        assert (await chain.head()).seqno > 0


async def test_waiting_for_a_block_moves_the_head(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, open_chain([server]) as chain:
        first = await chain.head()
        following = await chain.wait_next(first.seqno, WAIT_S)
        assert following.seqno == first.seqno + 1
        assert chain._head is not None
        assert chain._head.seqno >= following.seqno


async def test_another_block_than_the_one_asked_for_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer is an honest header: of the first block, whatever was asked."""
    async with serving(tmp_path) as server, open_chain([server]) as chain:
        head = await chain.wait_next((await chain.head()).seqno, WAIT_S)

        def first(node: Node, name: str, fields: dict[str, Any], now: int) -> bytes:
            block = node.step_by_seqno(1).masterchain_id
            return answer(node, "liteServer.getBlockHeader", {"id": block, "mode": 0}, now)

        instead(monkeypatch, "lookupBlock", first)
        with pytest.raises(ChainConflictError, match="got 1"):
            await chain.wait_next(head.seqno, WAIT_S)
    for name, ask in (("lookupBlock", "block_by_seqno"), ("getBlockHeader", "head")):
        async with serving(tmp_path) as server, open_chain([server]) as chain:
            instead(monkeypatch, name, first)
            with pytest.raises(ChainConflictError, match="got 1"):
                await (chain.head() if ask == "head" else chain.block_by_seqno(2))


async def test_a_server_that_announces_a_huge_frame_is_dropped() -> None:
    async with flooding(FRAME_BYTES_MAX + 1) as server, open_chain([server], timeout_s=5) as chain:
        with trio.fail_after(WAIT_S), pytest.raises(ChainUnavailableError, match="closed"):
            await chain.head()
        with pytest.raises(ChainUnavailableError, match="next try"):
            await chain.head()


@asynccontextmanager
async def flooding(frame_bytes: int) -> AsyncIterator[LiteServer]:
    """A liteserver that shakes hands, then answers any query with a frame of `frame_bytes`."""
    key = ServerKey(SEED)

    async def converse(stream: trio.SocketStream) -> None:
        handshake = b""
        while len(handshake) < HANDSHAKE_BYTES:
            handshake += await stream.receive_some(HANDSHAKE_BYTES - len(handshake))
        channel = key.accept(handshake)
        await stream.send_all(channel.seal(b""))
        await stream.receive_some(4)
        await stream.send_all(channel._out.update(frame_bytes.to_bytes(4, "little")))
        await trio.sleep_forever()

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, converse, listeners)
        yield LiteServer(host="127.0.0.1", port=port, public_key=key.public)
        nursery.cancel_scope.cancel()
