"""The wallet: transfers that land once or not at all, against an embedded chain without sockets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from nacl.signing import SigningKey
from pytoniq.contract.wallets.wallet import WALLET_V4_R2_CODE, WalletV4R2
from pytoniq.contract.wallets.wallet_v5 import WALLET_V5_R1_CODE, WalletV5R1
from pytoniq_core import Address as PytoniqAddress
from pytoniq_core import Builder, Cell
from pytoniq_core.tlb.account import StateInit

from contracts.devchain.network import DEVNET_GLOBAL_ID
from contracts.devchain.node import Node
from contracts.devchain.storage import Storage
from contracts.errors import (
    ChainUnavailableError,
    InvalidValueError,
    MessageRefusedError,
    TransferExpiredError,
)
from contracts.model import NANO, Address
from contracts.wallet import RESEND_BLOCKS, SETTLE_S, VALID_S, OutMessage, Wallet, wallet_address
from tests.contracts.chain_scene import (
    GENESIS,
    RECEIVER,
    SEED,
    START_S,
    FakeChain,
    account,
    message,
    own_address,
)

VERSIONS = ("v5r1", "v4r2")


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[FakeChain]:
    with Storage(tmp_path) as storage:
        yield FakeChain(Node(storage, GENESIS, now=START_S))


@pytest.fixture
def wallet(chain: FakeChain) -> Wallet:
    return Wallet(chain, SEED, global_id=DEVNET_GLOBAL_ID)


def received(chain: FakeChain, address: Address = RECEIVER) -> int:
    """TON that arrived, in whole units (a storage fee takes a few nano)."""
    return round(chain.node.ledger.account(address).balance_nanoton / NANO)


def seqno(chain: FakeChain, wallet: Wallet) -> int:
    code, stack = chain.node.ledger.get_method(wallet.address, "seqno")
    assert code == 0
    return int(stack[0])


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_first_transfer_deploys_and_later_ones_follow(chain: FakeChain, version: str) -> None:
    wallet = Wallet(chain, SEED, version, global_id=DEVNET_GLOBAL_ID)
    for _ in range(3):
        await wallet.transfer([message(), message()])
    assert (received(chain), seqno(chain, wallet), len(chain.sent)) == (6, 3, 3)


async def test_it_returns_only_when_proven_state_shows_it(chain: FakeChain, wallet: Wallet) -> None:
    await wallet.transfer([message()])
    head = chain.node.head
    assert chain.node.account(head, RECEIVER.account)[1].balance_nanoton == NANO


async def test_a_transfer_can_deploy_a_contract(chain: FakeChain, wallet: Wallet) -> None:
    other = Wallet(chain, bytes(32), "v4r2", global_id=DEVNET_GLOBAL_ID)
    deploy = OutMessage(dest=other.address, value_nanoton=NANO, body=Cell.empty(), state_init=other._state_init)
    await wallet.transfer([deploy])
    assert chain.node.ledger.account(other.address).status == "active"


async def test_concurrent_transfers_wait_for_each_other(chain: FakeChain, wallet: Wallet) -> None:
    targets = [account(f"target {i}") for i in range(5)]
    async with trio.open_nursery() as nursery:
        for target in targets:
            nursery.start_soon(wallet.transfer, [message(dest=target)])
    assert [received(chain, target) for target in targets] == [1] * 5
    assert seqno(chain, wallet) == 5


async def test_a_dropped_message_is_sent_again_as_it_was(chain: FakeChain, wallet: Wallet) -> None:
    await wallet.transfer([message()])
    chain.sent.clear()
    chain.drops = 1
    await wallet.transfer([message()])
    assert len(chain.sent) == 2
    assert chain.sent[0] == chain.sent[1]
    assert (received(chain), seqno(chain, wallet)) == (2, 2)


async def test_a_transfer_that_never_lands_expires(chain: FakeChain, wallet: Wallet) -> None:
    chain.drops = 10**6
    with pytest.raises(TransferExpiredError):
        await wallet.transfer([message()])
    assert chain.now - START_S > VALID_S + SETTLE_S
    assert len(set(chain.sent)) == 1
    assert len(chain.sent) <= 1 + VALID_S // chain.block_s // RESEND_BLOCKS
    chain.drops = 0
    await wallet.transfer([message()])
    assert (received(chain), seqno(chain, wallet)) == (1, 1)


async def test_a_cancelled_transfer_is_joined_not_repeated(chain: FakeChain, wallet: Wallet) -> None:
    await _cancel_after_sending(chain, wallet)
    await wallet.transfer([message()])
    assert (received(chain), seqno(chain, wallet), len(chain.sent)) == (1, 1, 1)
    await wallet.transfer([message()])
    assert received(chain) == 2, "once it has landed, the same messages are a new transfer"


async def test_other_messages_wait_for_the_cancelled_transfer(chain: FakeChain, wallet: Wallet) -> None:
    await _cancel_after_sending(chain, wallet)
    await wallet.transfer([message(2 * NANO)])
    assert (received(chain), seqno(chain, wallet)) == (3, 2)


async def test_a_lost_chain_leaves_the_outcome_open_and_a_repeat_joins(chain: FakeChain, wallet: Wallet) -> None:
    chain.unavailable = True
    with pytest.raises(ChainUnavailableError):
        await wallet.transfer([message()])
    chain.unavailable = False
    send = chain.send

    async def send_and_vanish(boc: bytes) -> None:
        await send(boc)
        chain.unavailable = True

    chain.send = send_and_vanish  # type: ignore[method-assign]
    with pytest.raises(ChainUnavailableError):
        await wallet.transfer([message()])
    chain.unavailable, chain.send = False, send  # type: ignore[method-assign]
    await wallet.transfer([message()])
    assert (received(chain), seqno(chain, wallet)) == (1, 1)


async def test_a_refusal_of_what_landed_is_no_failure(chain: FakeChain, wallet: Wallet) -> None:
    """A server took the message and its answer was lost; the next one refuses the number as used."""
    send = chain.send

    async def send_twice(boc: bytes) -> None:
        await send(boc)
        await send(boc)

    chain.send = send_twice  # type: ignore[method-assign]
    await wallet.transfer([message()])
    assert (received(chain), seqno(chain, wallet)) == (1, 1)


async def test_a_refusal_is_raised_and_the_wallet_goes_on(chain: FakeChain, wallet: Wallet) -> None:
    send = chain.send

    async def refuse(boc: bytes) -> None:
        raise MessageRefusedError("the test says so")

    chain.send = refuse  # type: ignore[method-assign]
    with pytest.raises(MessageRefusedError, match="the test"):
        await wallet.transfer([message()])
    chain.send = send  # type: ignore[method-assign]
    await wallet.transfer([message()])
    assert received(chain) == 1


async def test_what_cannot_be_paid_is_not_sent(chain: FakeChain, wallet: Wallet) -> None:
    with pytest.raises(MessageRefusedError, match="top it up"):
        await wallet.transfer([message(10**6 * NANO)])
    assert chain.sent == []


@pytest.mark.parametrize(("version", "count"), [("v5r1", 0), ("v5r1", 256), ("v4r2", 5)])
async def test_the_number_of_messages_is_bounded(chain: FakeChain, version: str, count: int) -> None:
    wallet = Wallet(chain, SEED, version, global_id=DEVNET_GLOBAL_ID)
    with pytest.raises(InvalidValueError):
        await wallet.transfer([message()] * count)


@pytest.mark.parametrize("version", VERSIONS)
async def test_as_many_messages_as_the_wallet_takes(chain: FakeChain, version: str) -> None:
    wallet = Wallet(chain, SEED, version, global_id=DEVNET_GLOBAL_ID)
    count = {"v5r1": 60, "v4r2": 4}[version]
    bodies = [Builder().store_uint(i, 32).end_cell() for i in range(count)]
    await wallet.transfer([OutMessage(dest=RECEIVER, value_nanoton=NANO, body=b, bounce=False) for b in bodies])
    assert received(chain) == count


async def test_a_body_too_large_is_refused_before_sending(chain: FakeChain, wallet: Wallet) -> None:
    wide = [OutMessage(dest=RECEIVER, value_nanoton=1, body=_blob(i), bounce=False) for i in range(200)]
    with pytest.raises(InvalidValueError, match="bytes"):
        await wallet.transfer(wide)
    assert chain.sent == []


def _blob(number: int) -> Cell:
    leaf = [Builder().store_bytes((4 * number + k).to_bytes(120, "big")).end_cell() for k in range(4)]
    builder = Builder()
    for cell in leaf:
        builder.store_ref(cell)
    return builder.end_cell()


@pytest.mark.parametrize("global_id", [-239, -3, DEVNET_GLOBAL_ID])
def test_addresses_are_those_of_pytoniq(global_id: int) -> None:
    public = bytes(SigningKey(SEED).verify_key)
    v5 = WalletV5R1.create_data_cell(public, network_global_id=global_id)
    v4 = WalletV4R2.create_data_cell(public)
    for version, code, data in (("v5r1", WALLET_V5_R1_CODE, v5), ("v4r2", WALLET_V4_R2_CODE, v4)):
        expected = PytoniqAddress((0, StateInit(code=code, data=data).serialize().hash))
        assert str(wallet_address(public, version, global_id=global_id)) == expected.to_str(is_user_friendly=False)


def test_an_address_of_another_network_differs() -> None:
    public = bytes(SigningKey(SEED).verify_key)
    assert wallet_address(public, global_id=-239) != own_address()


@pytest.mark.parametrize("seed", [b"", bytes(31), "secret words" * 3])
def test_a_bad_seed_is_not_shown(chain: FakeChain, seed: bytes) -> None:
    with pytest.raises(InvalidValueError) as refused:
        Wallet(chain, seed, global_id=DEVNET_GLOBAL_ID)
    assert "secret" not in str(refused.value)


def test_the_seed_shows_nowhere(wallet: Wallet) -> None:
    assert SEED.hex() not in repr(wallet)
    with pytest.raises(InvalidValueError, match="version"):
        Wallet(wallet._chain, SEED, "v9", global_id=DEVNET_GLOBAL_ID)


async def _cancel_after_sending(chain: FakeChain, wallet: Wallet) -> None:
    send = chain.send
    with trio.CancelScope() as scope:

        async def send_then_cancel(boc: bytes) -> None:
            await send(boc)
            scope.cancel()

        chain.send = send_then_cancel  # type: ignore[method-assign]
        await wallet.transfer([message()])
    assert scope.cancelled_caught
    chain.send = send  # type: ignore[method-assign]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
async def test_a_command_of_roots_does_not_lock_the_agents_user_out(chain: FakeChain, tmp_path: Path) -> None:
    folder = tmp_path / "agents"
    folder.mkdir()
    os.chown(folder, 12_345, 12_346)
    lock_file = folder / "wallet.lock"
    wallet = Wallet(chain, SEED, "v5r1", global_id=DEVNET_GLOBAL_ID, lock_file=lock_file)  # type: ignore[arg-type]
    async with wallet._alone():
        status = lock_file.stat()
        assert (status.st_uid, status.st_gid) == (12_345, 12_346)
