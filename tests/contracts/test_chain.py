"""The chain client against embedded liteservers on loopback, honest, gone and lying."""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts import chain_servers
from contracts.chain import Account, Chain, LiteServer, TransactionSummary, open_chain
from contracts.chain_proofs import read_account, read_header, read_transactions
from contracts.chain_values import ABSENT, Block
from contracts.devchain import liteserver
from contracts.devchain.network import DEVNET_GLOBAL_ID
from contracts.devchain.node import Node
from contracts.devchain.queries import answer
from contracts.devchain.storage import Storage
from contracts.errors import (
    ChainConflictError,
    ChainUnavailableError,
    ContractAbsentError,
    ContractsError,
    GetMethodFailedError,
    InvalidValueError,
    MessageRefusedError,
    UnreadableStateError,
)
from contracts.model import NANO, Address
from contracts.signing import SigningKey
from contracts.wallet import Wallet
from tests.contracts.chain_scene import (
    FUNDS,
    GENESIS,
    NOBODY,
    RECEIVER,
    SEED,
    START_S,
    TL,
    external,
    message,
    own_address,
    query,
    serving,
)

WAIT_S = 20


async def until(chain: Chain, reached: Callable[[], Awaitable[bool]]) -> None:
    """Look again with every block until `reached` says so."""
    block = await chain.head()
    while not await reached():
        block = await chain.wait_next(block.seqno, WAIT_S)


async def test_reads_and_a_transfer(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, open_chain([server]) as chain:
        assert (await chain.account(own_address())).balance_nanoton == FUNDS
        assert await chain.account(NOBODY) == ABSENT
        assert await chain.transactions(NOBODY, 5) == []
        assert await chain.global_id() == DEVNET_GLOBAL_ID
        before = await chain.head()
        wallet = Wallet(chain, SEED, global_id=DEVNET_GLOBAL_ID)
        await wallet.transfer([message()])
        assert (await chain.account(RECEIVER)).balance_nanoton == NANO
        assert await chain.account(RECEIVER, before) == ABSENT
        assert await chain.get_method(wallet.address, "seqno") == [1]
        (landed,) = await chain.transactions(wallet.address, 5)
        assert isinstance(landed, TransactionSummary)
        assert (landed.exit_code, landed.action_code, landed.aborted) == (0, 0, False)
        account = await chain.account(wallet.address)
        assert (account.active, account.last_hash, account.last_lt) == (True, landed.hash, landed.lt)


@pytest.mark.parametrize("trust_level", [1, 2])
async def test_trust_levels(tmp_path: Path, trust_level: int) -> None:
    async with serving(tmp_path) as server, open_chain([server], trust_level=trust_level) as chain:
        assert (await chain.account(own_address())).balance_nanoton == FUNDS


async def test_more_transactions_than_one_answer_holds(tmp_path: Path) -> None:
    with Storage(tmp_path) as storage:
        node = Node(storage, GENESIS, now=START_S)
        for number in range(40):
            node.send(external(number, [message()]), START_S + number)
            node.seal(START_S + number)
    async with serving(tmp_path) as server, open_chain([server]) as chain:
        found = await chain.transactions(RECEIVER, 35)
        assert len(found) == 35
        assert [t.lt for t in found] == sorted((t.lt for t in found), reverse=True)
        assert len(await chain.transactions(RECEIVER, 100)) == 40


async def test_refusals_have_their_own_errors(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, open_chain([server]) as chain:
        with pytest.raises(MessageRefusedError):
            await chain.send(b"garbage")
        with pytest.raises(ContractAbsentError):
            await chain.get_method(NOBODY, "seqno")
        await chain.send(external(0, [message()]))
        await until(chain, lambda: _active(chain))
        with pytest.raises(MessageRefusedError, match="133"):
            await chain.send(external(0, [message()]))
        with pytest.raises(GetMethodFailedError) as failed:
            await chain.get_method(own_address(), "no such method")
        assert failed.value.exit_code == 11
        with pytest.raises(ChainUnavailableError):
            await chain.block_by_seqno(10**6)


async def _active(chain: Chain) -> bool:
    return (await chain.account(own_address())).active


async def test_block_at_is_the_first_one_of_its_time(tmp_path: Path) -> None:
    times = [START_S + offset for offset in (5, 5, 5, 6, 20, 20, 31)]
    with Storage(tmp_path) as storage:
        node = Node(storage, GENESIS, now=START_S)
        for time_s in times:
            node.seal(time_s)
    async with serving(tmp_path, block_s=60) as server, open_chain([server]) as chain:
        head = await chain.head()
        all_blocks = [await chain.block_by_seqno(i) for i in range(1, head.seqno + 1)]
        for time_s in range(START_S, START_S + 32):
            expected = next(block for block in all_blocks if block.time_s >= time_s)
            assert await chain.block_at(time_s) == expected
        with pytest.raises(ChainUnavailableError, match="yet"):
            await chain.block_at(START_S + 32)


async def test_waiting_for_blocks(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, open_chain([server]) as chain:
        first = await chain.head()
        for offset in range(1, 4):
            assert (await chain.wait_next(first.seqno + offset - 1, WAIT_S)).seqno == first.seqno + offset
        with pytest.raises(ChainUnavailableError, match="no block after"):
            await chain.wait_next(first.seqno + 10**6, 0.05)


async def test_cancelling_a_wait_leaves_the_client_usable(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, open_chain([server]) as chain:
        with trio.move_on_after(0.05) as scope:
            await chain.wait_next(10**6, WAIT_S)
        assert scope.cancelled_caught
        assert (await chain.head()).seqno > 0


async def test_no_server_is_an_error_and_not_a_wait() -> None:
    gone = LiteServer(host="127.0.0.1", port=1, public_key=bytes(32))
    async with open_chain([gone], timeout_s=1) as chain:
        with pytest.raises(ChainUnavailableError, match=r"127\.0\.0\.1:1"):
            await chain.head()
        with pytest.raises(ChainUnavailableError, match="next try"):
            await chain.head()


async def test_a_server_that_never_answers(tmp_path: Path) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    silent = LiteServer(host="127.0.0.1", port=port, public_key=hashlib.sha256(b"").digest())
    async with open_chain([silent], timeout_s=0.2) as chain:
        with pytest.raises(ChainUnavailableError):
            await chain.head()
    await listeners[0].aclose()


async def test_the_client_survives_the_servers_death_and_return(tmp_path: Path) -> None:
    """The same client goes on; so does the chain that the server took up again."""
    async with serving(tmp_path) as server:
        pass
    async with open_chain([server], timeout_s=2) as chain:
        with pytest.raises(ChainUnavailableError):
            await chain.head()
        for _ in range(2):
            async with serving(tmp_path, port=server.port):
                block = await _patient(chain.head)
                assert (await chain.account(own_address(), block)).balance_nanoton == FUNDS
                last = await chain.wait_next(block.seqno, WAIT_S)
            with pytest.raises(ChainUnavailableError):
                await chain.wait_next(last.seqno, WAIT_S)
        assert last.seqno > block.seqno


async def _patient(call: Callable[[], Awaitable[Block]]) -> Block:
    """Call until the client is willing to connect again (its back-off is real time)."""
    while True:
        try:
            return await call()
        except ChainUnavailableError:
            await trio.sleep(0.02)


async def test_the_next_server_takes_over(tmp_path: Path) -> None:
    gone = LiteServer(host="127.0.0.1", port=1, public_key=bytes(32))
    async with serving(tmp_path) as server, open_chain([gone, server]) as chain:
        assert (await chain.head()).seqno > 0
        assert (await chain.account(own_address())).balance_nanoton == FUNDS


def _tampered(monkeypatch: pytest.MonkeyPatch, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Make the liteserver in this process lie: `change` edits its decoded answers to `name`."""

    def lie(node: Node, asked: str, fields: dict[str, Any], now: int) -> bytes:
        raw = answer(node, asked, fields, now)
        if asked != f"liteServer.{name}":
            return raw
        decoded = TL.deserialize(raw)[0]
        change(decoded)
        changed: bytes = TL.serialize(TL.get_by_name(decoded.pop("@type")), decoded)
        return changed

    monkeypatch.setattr(liteserver, "answer", lie)


def _more_money(decoded: dict[str, Any]) -> None:
    state = bytearray(decoded["state"])
    state[-12] ^= 1
    decoded["state"] = bytes(state)


def _no_account(decoded: dict[str, Any]) -> None:
    decoded["state"] = b""


def _other_shard_block(decoded: dict[str, Any]) -> None:
    decoded["shardblk"]["root_hash"] = "11" * 32


@pytest.mark.parametrize("change", [_more_money, _no_account, _other_shard_block])
async def test_a_lying_server_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, Any]], None]
) -> None:
    _tampered(monkeypatch, "getAccountState", change)
    async with serving(tmp_path) as server, open_chain([server]) as chain:
        block = await chain.head()
        with pytest.raises(ChainConflictError):
            await chain.account(own_address(), block)
        with pytest.raises(ChainUnavailableError, match="next try"):
            await chain.account(own_address(), block)


async def test_no_server_is_blamed_for_what_a_stranger_put_on_chain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither for a state that cannot be read here, nor for an address of which nobody can prove anything."""
    asked: list[str] = []

    def note(decoded: dict[str, Any]) -> None:
        asked.append(decoded["@type"])
        _more_money(decoded)

    _tampered(monkeypatch, "getAccountState", note)
    async with serving(tmp_path) as server, open_chain([server]) as chain:
        block = await chain.head()
        with pytest.raises(UnreadableStateError, match=str(own_address())):
            await chain.foreign_account(own_address(), block)
        assert len(asked) == 1
        for read in (chain.account, chain.foreign_account, chain.kept_account):
            with pytest.raises(InvalidValueError, match="no workchain 5"):
                await read(Address(5, b"w" * 32), block)
        assert len(asked) == 1
        monkeypatch.undo()
        assert (await chain.foreign_account(own_address(), block)).balance_nanoton == FUNDS
        assert await chain.foreign_account(NOBODY, block) == ABSENT


class Server:
    """In place of a connection: says one thing for ever."""

    server = "here"

    def __init__(self, says: ContractsError | str) -> None:
        self.says = says

    async def ask(self, _ask: object) -> str:
        if isinstance(self.says, ContractsError):
            raise self.says
        return self.says


async def test_another_server_may_show_a_stranger_s_account_better() -> None:
    away, lies, unreadable = ChainUnavailableError("away"), ChainConflictError("lies"), UnreadableStateError("odd")

    async def said(*what: ContractsError | str) -> str:
        servers: Any = [Server(each) for each in what]
        return await chain_servers.Servers(servers).ask(Any)

    assert await said(unreadable, "the account") == "the account"
    for order in ((unreadable, away), (away, unreadable)):
        with pytest.raises(UnreadableStateError):
            await said(*order)
    for order in ((unreadable, lies), (lies, unreadable), (away, lies), (lies, away)):
        with pytest.raises(ChainConflictError):
            await said(*order)


async def test_a_server_with_another_header_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def later(decoded: dict[str, Any]) -> None:
        decoded["id"]["root_hash"] = "22" * 32

    _tampered(monkeypatch, "getBlockHeader", later)
    async with serving(tmp_path) as server, open_chain([server]) as chain:
        with pytest.raises(ChainConflictError):
            await chain.head()


async def test_two_chains_do_not_agree(tmp_path: Path) -> None:
    async with (
        serving(tmp_path / "a", block_s=60) as first,
        serving(tmp_path / "b", block_s=60) as second,
        open_chain([first]) as chain,
        open_chain([second]) as other,
    ):
        chain._head = Block(seqno=(await chain.head()).seqno, root_hash=bytes(32), file_hash=bytes(32), time_s=START_S)
        with pytest.raises(ChainConflictError, match="disagree"):
            await chain.head()
        assert (await other.head()).seqno == 1


@pytest.mark.parametrize(
    ("servers", "options"),
    [(0, {}), (1, {"trust_level": 0}), (1, {"trust_level": 3}), (1, {"timeout_s": 0}), (1, {"timeout_s": 10})],
)
async def test_arguments_are_checked(servers: int, options: dict[str, Any]) -> None:
    server = LiteServer(host="127.0.0.1", port=1, public_key=bytes(32))
    with pytest.raises(InvalidValueError):
        async with open_chain([server] * servers, **options):
            pass


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Block, Account]:
    """An answer about an account, its block, and what it says."""
    with Storage(tmp_path_factory.mktemp("chain")) as storage:
        node = Node(storage, GENESIS, now=START_S)
        node.send(external(0, [message()]), START_S)
        step = node.seal(START_S + 1)
        block = read_header(query(node, "getBlockHeader", id=step.masterchain_id, mode=0))
        fields = {"id": step.masterchain_id, "account": {"workchain": 0, "id": own_address().account}}
        state = query(node, "getAccountState", **fields)
        return state, block, read_account(state, own_address(), block, trust_level=1)


class TestProofs:
    """Every byte of an answer that is changed is found out, or changes nothing."""

    @settings(max_examples=300)
    @given(field=st.sampled_from(["shard_proof", "proof", "state"]), data=st.data())
    def test_flipped_bits(self, scene: tuple[dict[str, Any], Block, Account], field: str, data: st.DataObject) -> None:
        state, block, account = scene
        raw = bytearray(state[field])
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        try:
            found = read_account({**state, field: bytes(raw)}, own_address(), block, trust_level=1)
        except ChainConflictError:
            return
        assert found == account

    @given(field=st.sampled_from(["shard_proof", "proof", "state"]), raw=st.binary(max_size=300))
    def test_garbage(self, scene: tuple[dict[str, Any], Block, Account], field: str, raw: bytes) -> None:
        state, block, _ = scene
        with pytest.raises(ChainConflictError):
            read_account({**state, field: raw}, own_address(), block, trust_level=1)

    def test_an_answer_for_another_account_or_block(self, scene: tuple[dict[str, Any], Block, Account]) -> None:
        state, block, _ = scene
        with pytest.raises(ChainConflictError):
            read_account(state, RECEIVER, block, trust_level=1)
        other = Block(seqno=block.seqno, root_hash=bytes(32), file_hash=block.file_hash, time_s=block.time_s)
        with pytest.raises(ChainConflictError, match="another block"):
            read_account(state, own_address(), other, trust_level=1)

    @pytest.mark.parametrize("empty", [{}, {"transactions": b""}])
    def test_no_transactions_are_no_answer(self, empty: dict[str, Any]) -> None:
        with pytest.raises(ChainConflictError):
            read_transactions(empty, bytes(32), 5)


def test_pytoniq_is_quiet() -> None:
    client = chain_servers._Client("127.0.0.1", 1, base64.b64encode(SigningKey(bytes(32)).public).decode())
    assert not client.logger.isEnabledFor(logging.ERROR)
