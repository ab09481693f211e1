"""What a client of the embedded chain may send, and what the chain promises it about its messages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from pytoniq_core import Builder, Cell
from pytoniq_core.proof.check_proof import check_block_header_proof
from pytoniq_core.tlb.block import Block

from contracts.chain import open_chain
from contracts.devchain.boc import to_boc
from contracts.devchain.errors import EmulatorTrapError, EmulatorUnavailableError, InvalidMessageError
from contracts.devchain.ledger import Ledger
from contracts.devchain.liteserver import LiteServer as Server
from contracts.devchain.node import Node
from contracts.devchain.storage import Storage
from contracts.devchain.tl import _BY_NAME
from contracts.model import NANO
from contracts.wallet import OutMessage
from tests.contracts.chain_scene import (
    GENESIS,
    RECEIVER,
    START_S,
    external,
    funded_ledger,
    message,
    own_address,
    query,
    serving,
)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with Storage(tmp_path) as storage:
        yield Node(storage, GENESIS, now=START_S)


def shared_cells(levels: int) -> Cell:
    """A cell with three to the power of `levels` paths below it, in `levels` + 1 distinct cells."""
    cell = Cell.empty()
    for _ in range(levels):
        cell = Builder().store_ref(cell).store_ref(cell).store_ref(cell).end_cell()
    return cell


def send_body(node: Node, monkeypatch: pytest.MonkeyPatch, body: Cell) -> None:
    """Deploy the wallet, and let it send `body` to the receiver."""
    monkeypatch.setattr(Cell, "to_boc", to_boc)  # pytoniq's own would take for ever
    node.send(external(0, [message()]), START_S)
    node.send(external(1, [OutMessage(dest=RECEIVER, value_nanoton=NANO, body=body, bounce=False)]), START_S)


def test_a_body_of_shared_cells_stops_no_query(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    send_body(node, monkeypatch, shared_cells(100))
    step = node.seal(START_S)
    listed = query(node, "listBlockTransactions", id=step.shard_id, mode=39, count=10)
    assert len(listed["ids"]) == 4
    assert query(node, "getBlock", id=step.shard_id)["data"]
    state = {"id": step.masterchain_id, "account": {"workchain": 0, "id": RECEIVER.account}}
    assert query(node, "getAccountState", **state)["state"]
    last = node.ledger.account(RECEIVER)
    where = {"workchain": 0, "id": RECEIVER.account}
    assert query(node, "getTransactions", count=9, account=where, lt=last.last_lt, hash=last.last_hash)["ids"]


def test_the_proof_of_a_blocks_transactions_names_each_of_them(node: Node) -> None:
    node.send(external(0, [message(), message()]), START_S)
    step = node.seal(START_S)
    listed = query(node, "listBlockTransactions", id=step.shard_id, mode=39, count=10)
    proof = Cell.one_from_boc(listed["proof"])
    check_block_header_proof(proof[0], step.shard_id.root_hash)
    accounts = Block.deserialize(proof[0].begin_parse()).extra.account_blocks[0]
    for item in listed["ids"]:
        shown = accounts[int(item["account"], 16)].transactions[0][item["lt"]]
        assert shown.get_hash(0).hex() == item["hash"]
        assert shown.is_exotic, "the transaction itself is left out"
    assert len(listed["ids"]) == len(step.transactions) == 3


def test_an_account_that_cannot_be_read_back_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = funded_ledger()
    ledger.take_changes()
    before = ledger.account(own_address())

    def unreadable(*_arguments: object) -> None:
        raise InvalidMessageError("a kind of account that is not known here")

    with monkeypatch.context() as patched, pytest.raises(EmulatorTrapError):
        patched.setattr("contracts.devchain.ledger.read_account", unreadable)
        ledger.send_external(external(0, [message()]))
    assert ledger.account(own_address()) == before
    assert not ledger.has_changes
    assert ledger.send_external(external(0, [message()]))[0].success


def test_a_frozen_account_is_a_state_like_others() -> None:
    ledger = funded_ledger()
    ledger.send_external(external(0, [message(1000 * NANO - NANO // 50)]))
    ledger.advance(START_S + 50 * 365 * 86400)
    applied = ledger.send_internal(RECEIVER, own_address(), 1, Cell.empty(), bounce=False)
    assert applied[0].aborted
    frozen = ledger.account(own_address())
    assert (frozen.status, frozen.code, frozen.data) == ("frozen", None, None)


def test_messages_of_one_block_share_its_time(node: Node) -> None:
    before = node.head.time_s
    node.send(external(0, [message()]), before + 5)
    node.send(external(1, [message()]), before + 7)
    step = node.seal(before + 9)
    assert step.time_s == before + 5
    assert {t.now for t in step.transactions} == {step.time_s}
    node.send(external(2, [message()]), before + 9)
    assert node.seal(before + 9).time_s == before + 9


async def test_a_block_follows_a_message_without_waiting_for_the_tick(tmp_path: Path) -> None:
    async with serving(tmp_path, block_s=3600) as server, open_chain([server]) as chain:
        head = await chain.head()
        await chain.send(external(0, [message()]))
        block = await chain.wait_next(head.seqno, 30)
        assert (await chain.account(RECEIVER, block)).balance_nanoton == NANO


async def test_what_was_accepted_is_sealed_on_the_way_out(tmp_path: Path) -> None:
    with Storage(tmp_path) as storage:
        node = Node(storage, GENESIS, now=START_S)
        server = Server(node, block_s=3600, clock=lambda: START_S + 1)
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve, listeners)
            await trio.testing.wait_all_tasks_blocked()
            node.send(external(0, [message()]), START_S + 1)
            nursery.cancel_scope.cancel()
    with Storage(tmp_path) as storage:
        assert Node(storage, {}, now=START_S).ledger.account(RECEIVER).balance_nanoton == NANO


async def test_a_query_that_is_an_answer_does_not_end_the_server(tmp_path: Path) -> None:
    """Every constructor that the server knows may come as a query, with any body."""
    with Storage(tmp_path) as storage:
        server = Server(Node(storage, GENESIS, now=START_S), block_s=3600, clock=lambda: START_S)
        for constructor in _BY_NAME.values():
            for body in (b"", bytes(256), b"\xff" * 256):
                query_data = constructor.number + body
                size = len(query_data).to_bytes(3, "little")
                wrapped = _BY_NAME["liteServer.query"].number + b"\xfe" + size + query_data
                assert await server._answer(wrapped + bytes(-len(wrapped) % 4))


def test_a_missing_emulator_is_noticed_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise EmulatorUnavailableError("emulator.wasm.xz: No such file; reinstall the package")

    monkeypatch.setattr("contracts.devchain.emulator._Guest", refuse)
    with pytest.raises(EmulatorUnavailableError, match="reinstall"):
        Ledger(now=START_S).warm_up()
