"""The doctor at the chain: a pool on the embedded chain, liteservers that are away, behind, or tell another story."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from pool_fixture import START_S, policy
from pool_town import Town, open_town
from trio.testing import MockClock

from agent.config import load_pool_config
from agent.doctor import probing_chain
from agent.doctor.facts import PoolFacts, Unknown
from agent.doctor.probing_chain import Seen, look_at_chain
from agent.doctor.probing_files import Opened
from agent.identity import load_key
from agent.servers import config_servers
from contracts.chain_values import Block, LiteServer
from contracts.errors import ChainUnavailableError, ContractAbsentError
from contracts.model import NANO
from contracts.signing import SigningKey

SERVERS = tuple(LiteServer(host=f"server-{i}", port=1, public_key=bytes(32)) for i in range(3))


def block(seqno: int = 7, *, root: bytes = b"r" * 32, age_s: int = 0, global_id: int = -217) -> Block:
    return Block(seqno=seqno, root_hash=root, file_hash=bytes(32), time_s=START_S - age_s, global_id=global_id)


class Chain:
    """What one server shows, or all of them together; no pool stands there."""

    def __init__(
        self,
        *blocks: Block,
        error: str | None = None,
        head_s: float = 0,
        block_s: float = 0,
        account_s: float = 0,
    ) -> None:
        self._blocks = {each.seqno: each for each in blocks}
        self._error = error
        self._head_s, self._block_s, self._account_s = head_s, block_s, account_s

    async def head(self) -> Block:
        await trio.sleep(self._head_s)
        if self._error is not None:
            raise ChainUnavailableError(self._error)
        return self._blocks[max(self._blocks)]

    async def block_by_seqno(self, seqno: int) -> Block:
        await trio.sleep(self._block_s)
        if seqno not in self._blocks:
            raise ChainUnavailableError(f"block {seqno} is not here")
        return self._blocks[seqno]

    async def account(self, *_: object) -> Any:
        await trio.sleep(self._account_s)
        raise ContractAbsentError("nothing stands there")


def opened(servers: Sequence[LiteServer] = SERVERS) -> Opened:
    table = SimpleNamespace(timeout_s=5.0, trust_level=1)
    pool = SimpleNamespace(global_id=-217, contract=None)
    config: Any = SimpleNamespace(chain=table, pool=pool)
    return Opened(config=config, node_key=None, wallet_key=None, policies=None, servers=tuple(servers))


def showing(monkeypatch: pytest.MonkeyPatch, chain_of: Callable[[Sequence[LiteServer]], Any]) -> None:
    @asynccontextmanager
    async def open_chain(servers: Sequence[LiteServer], **_: object) -> AsyncIterator[Any]:
        yield chain_of(servers)

    monkeypatch.setattr(probing_chain, "open_chain", open_chain)
    monkeypatch.setattr(probing_chain, "time", SimpleNamespace(time=lambda: float(START_S)))


async def looked(monkeypatch: pytest.MonkeyPatch, *chains: Chain) -> Seen:
    """Each server with its chain; together they show what the first one does that answers."""
    alone = dict(zip(SERVERS, chains, strict=True))
    showing(monkeypatch, lambda servers: alone[servers[0]])
    return await look_at_chain(opened())


async def test_servers_that_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = await looked(monkeypatch, Chain(block(7), block(8)), Chain(block(7)), Chain(block(7), block(8)))
    assert (seen.chain.error, seen.chain.conflict, seen.chain.global_id) == (None, None, -217)
    assert [server.error for server in seen.chain.servers] == [None] * 3
    assert seen.chain.clock_ahead_s == 0
    assert (seen.pool_absent, isinstance(seen.pool, Unknown)) == ("nothing stands there", True)


async def test_a_server_that_is_away_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = await looked(monkeypatch, Chain(error="refused"), Chain(block(age_s=130)), Chain(block()))
    assert [server.error for server in seen.chain.servers] == ["refused", None, None]
    assert (seen.chain.error, seen.chain.clock_ahead_s) == (None, 130)


async def test_servers_that_show_different_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = await looked(monkeypatch, Chain(block(7), block(8)), Chain(block(7, root=b"x" * 32)), Chain(block(7)))
    assert str(seen.chain.conflict).startswith("liteservers show different blocks 7: server-0:1 7272")
    assert "server-1:1 7878" in str(seen.chain.conflict)


async def test_a_server_that_forgot_the_block_is_no_conflict(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = await looked(monkeypatch, Chain(block(9)), Chain(block(7)), Chain(block(7)))
    assert seen.chain.conflict is None


async def test_no_server_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = await looked(monkeypatch, *(Chain(error="refused") for _ in SERVERS))
    assert seen.chain.error == "refused; refused; refused; 3 of 3 asked"
    assert isinstance(seen.chain.clock_ahead_s, Unknown)
    assert isinstance(seen.pool_absent, Unknown), "nobody knows whether there is a pool"


async def test_further_servers_are_asked_while_none_has_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    servers = [LiteServer(host=f"server-{i}", port=1, public_key=bytes(32)) for i in range(20)]
    asked: list[str] = []

    def chain_of(some: Sequence[LiteServer]) -> Chain:
        asked.extend(server.host for server in some if len(some) == 1)
        return Chain(block()) if some[0].host == "server-9" else Chain(error="refused")

    showing(monkeypatch, chain_of)
    seen = await look_at_chain(opened(servers))
    assert asked[:16] == [f"server-{i}" for i in range(16)]
    assert asked[16:] == ["server-9"], "once one has answered the pool is read through it"
    assert (seen.chain.error, seen.chain.servers_known, len(seen.chain.servers)) == (None, 20, 16)
    showing(monkeypatch, lambda _: Chain(error="refused"))
    seen = await look_at_chain(opened(servers))
    assert seen.chain.error == "refused; refused; refused; refused; and 16 more; 20 of 20 asked"


async def test_servers_that_hang_end_in_time(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    showing(monkeypatch, lambda _: Chain(block(), head_s=1000))
    seen = await look_at_chain(opened())
    assert trio.current_time() == probing_chain.WHOLE_S
    assert [server.error for server in seen.chain.servers] == ["no answer in time"] * 3
    assert "3 of 3 asked" in str(seen.chain.error)


async def test_a_pool_that_is_slow_hides_no_head(monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> None:
    showing(monkeypatch, lambda _: Chain(block(), account_s=1000))
    seen = await look_at_chain(opened())
    assert trio.current_time() == probing_chain.WHOLE_S
    assert (seen.chain.error, seen.chain.conflict, seen.chain.clock_ahead_s) == (None, None, 0)
    assert seen.pool == seen.pool_absent == Unknown("the pool was not read within 10 s")


async def test_heads_that_cannot_be_compared_in_time_are_heads(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    showing(monkeypatch, lambda _: Chain(block(), block_s=1000))
    seen = await look_at_chain(opened())
    assert (seen.chain.error, seen.chain.global_id) == (None, -217)
    assert seen.chain.conflict == Unknown("the liteservers were not compared in time")


async def test_another_network(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = await looked(monkeypatch, *(Chain(block(global_id=-3)) for _ in SERVERS))
    assert (seen.chain.global_id, seen.chain.wanted_id) == (-3, -217)
    assert isinstance(seen.pool, Unknown)


# A pool.


def pool_seen_by(town: Town, name: str, monkeypatch: pytest.MonkeyPatch, **keys: SigningKey) -> Seen:
    config: Any = load_pool_config(Path(f"{name}.toml"))
    showing(monkeypatch, lambda _: town.chain)
    mine = Opened(
        config=config,
        node_key=load_key(config.resolve(config.identity.node_key_file)),
        wallet_key=load_key(config.resolve(config.wallet.key_file)),
        policies={policy().hash: policy()},
        servers=tuple(config_servers(config)),
    )
    return trio.run(look_at_chain, replace(mine, **keys))


def test_a_pool_and_this_node_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_town(tmp_path, monkeypatch, capsys) as town:
        assert "stands at" in str(pool_seen_by(town, "ann", monkeypatch).pool_absent)
        town.deploy()
        town.register("ann", "bob")
        ann, cid = (pool_seen_by(town, name, monkeypatch).pool for name in ("ann", "cid"))
        assert isinstance(ann, PoolFacts)
        assert isinstance(cid, PoolFacts)
        assert cid.entry is None
        assert ann.entry is not None
        assert not isinstance(ann.entry, Unknown)
        assert (ann.entry.stake_nanoton, ann.entry.address) == (100 * NANO, ann.wallet)
        assert ann.wallet_nanoton == town.balance(ann.entry.address)
        assert ann.rewards.running.terms.policy_hash == policy().hash
        assert isinstance(ann.worker, Unknown)
        assert (ann.wallets_node_key, ann.is_next_registered) == (None, False)
        # Ann's agent in the middle of a rotation: the registry names the next key, its file has another.
        before = SigningKey(b"before the rotation".ljust(32))
        late = pool_seen_by(town, "ann", monkeypatch, node_key=before, next_node_key=load_key(Path("ann.node"))).pool
        assert isinstance(late, PoolFacts)
        assert (late.entry, late.wallets_node_key, late.is_next_registered) == (None, ann.entry.node_key, True)
