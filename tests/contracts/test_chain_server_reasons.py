"""What a user reads when no liteserver answers: the reason, and what to look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from contracts.chain import LiteServer, open_chain
from contracts.devchain.adnl import ServerKey
from contracts.errors import ChainUnavailableError
from tests.contracts.chain_scene import serving


async def test_a_port_that_nobody_listens_on(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        gone = server
    with pytest.raises(ChainUnavailableError, match=r": connection refused$"):
        async with open_chain([gone]) as chain:
            await chain.head()


@pytest.mark.parametrize("key", [bytes(31) + b"\xff", ServerKey(bytes(32)).public])
async def test_a_server_with_another_key(tmp_path: Path, key: bytes) -> None:
    async with serving(tmp_path) as server:
        false = LiteServer(host=server.host, port=server.port, public_key=key)
        with pytest.raises(ChainUnavailableError, match="check its address and its key"):
            async with open_chain([false]) as chain:
                await chain.head()
