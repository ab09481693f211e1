"""Accounts and messages of the embedded chain."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytoniq_core import Builder, Cell

from contracts.devchain.boc import BOC_BYTES_MAX, from_boc, to_boc
from contracts.devchain.errors import DevchainError, InvalidMessageError, NotAcceptedError
from contracts.devchain.ledger import NOT_ACTIVE, Ledger, method_id
from contracts.devchain.network import DEVNET_GLOBAL_ID
from contracts.errors import InvalidValueError
from contracts.model import NANO, Address
from tests.contracts.chain_scene import (
    FUNDS,
    NOBODY,
    RECEIVER,
    START_S,
    external,
    funded_ledger,
    message,
    own_address,
)


@pytest.fixture
def ledger() -> Ledger:
    return funded_ledger()


def total(ledger: Ledger, *addresses: Address) -> int:
    return sum(ledger.account(a).balance_nanoton for a in addresses)


@pytest.mark.parametrize("version", ["v5r1", "v4r2"])
def test_a_wallet_pays_and_every_nanoton_is_accounted_for(ledger: Ledger, version: str) -> None:
    wallet = own_address(version)
    applied = ledger.send_external(external(0, [message(), message(2 * NANO)], version=version))
    assert [t.address for t in applied] == [wallet, RECEIVER, RECEIVER]
    assert applied[0].exit_code == 0
    assert applied[0].action_code == 0
    assert applied[0].gas_used > 0
    assert [m.value_nanoton for m in applied[0].out_messages] == [NANO, 2 * NANO]
    assert ledger.account(wallet).status == "active"
    fees = sum(t.fees_nanoton for t in applied)
    forwarding = sum(m.fwd_fee_nanoton for t in applied for m in t.out_messages)
    assert total(ledger, wallet, RECEIVER) + fees + forwarding == FUNDS
    assert ledger.account(RECEIVER).last_hash == applied[2].hash


def test_a_refused_message_changes_nothing(ledger: Ledger) -> None:
    ledger.send_external(external(0, [message()]))
    before, lt = ledger.account(own_address()), ledger.lt
    ledger.take_changes()
    with pytest.raises(NotAcceptedError) as refused:
        ledger.send_external(external(0, [message()]))
    assert refused.value.exit_code == 133
    assert ledger.account(own_address()) == before
    assert (ledger.lt, ledger.has_changes) == (lt, False)


def test_an_expired_message_is_refused(ledger: Ledger) -> None:
    ledger.advance(START_S + 100)
    with pytest.raises(NotAcceptedError):
        ledger.send_external(external(0, [message()], until_s=START_S + 99))


def test_an_account_without_code_accepts_nothing(ledger: Ledger) -> None:
    empty = Builder().store_uint(0b10, 2).store_uint(0, 2).store_uint(0b100, 3).store_int(0, 8)
    boc = empty.store_bytes(NOBODY.account).store_coins(0).store_uint(0, 2).end_cell().to_boc()
    with pytest.raises(NotAcceptedError) as refused:
        ledger.send_external(boc)
    assert refused.value.exit_code is None


def test_value_bounces_off_an_account_without_code(ledger: Ledger) -> None:
    applied = ledger.send_internal(own_address(), RECEIVER, NANO, Cell.empty(), bounce=True)
    assert [t.address for t in applied] == [RECEIVER, own_address()]
    assert applied[0].aborted
    assert applied[0].bounce
    assert applied[1].in_source == RECEIVER
    assert total(ledger, own_address()) > FUNDS + NANO // 2


def test_get_methods_and_config(ledger: Ledger) -> None:
    assert ledger.get_method(own_address(), "seqno") == (NOT_ACTIVE, [])
    ledger.send_external(external(0, [message()]))
    assert ledger.get_method(own_address(), "seqno") == (0, [1])
    wallet_id = (1 << 31 ^ DEVNET_GLOBAL_ID) & 0xFFFFFFFF
    assert ledger.get_method(own_address(), "get_subwallet_id") == (0, [wallet_id])
    assert ledger.get_method(own_address(), "no such method")[0] == 11


def test_method_numbers() -> None:
    assert method_id("seqno") == 85143


def test_time_and_genesis_rules(ledger: Ledger) -> None:
    with pytest.raises(InvalidValueError):
        ledger.advance(START_S - 1)
    with pytest.raises(InvalidValueError, match="exists"):
        ledger.fund(own_address(), 1)
    with pytest.raises(InvalidValueError):
        ledger.fund(Address(-1, bytes(32)), 1)


def test_two_ledgers_agree() -> None:
    first, second = funded_ledger(), funded_ledger()
    boc = external(0, [message()])
    assert [t.hash for t in first.send_external(boc)] == [t.hash for t in second.send_external(boc)]


@given(st.binary(max_size=300))
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidMessageError):
        from_boc(data)


@pytest.mark.parametrize("cell", [Cell.empty(), Builder().store_uint(0b0110, 4).end_cell()])
def test_a_cell_that_is_no_external_message_is_refused(ledger: Ledger, cell: Cell) -> None:
    with pytest.raises(DevchainError):
        ledger.send_external(cell.to_boc())


def test_a_small_bag_of_shared_cells_is_no_trap() -> None:
    """80 cells, 2**80 paths through them."""
    cell = Builder().store_uint(1, 8).end_cell()
    for _ in range(80):
        cell = Builder().store_ref(cell).store_ref(cell).end_cell()
    data = to_boc(cell)
    assert len(data) < 1000
    assert from_boc(data) == cell


def test_bags_with_several_roots_are_read_by_pytoniq() -> None:
    cells = [Builder().store_uint(i, 9).store_ref(Cell.empty()).end_cell() for i in range(300)]
    assert Cell.from_boc(to_boc(*cells)) == cells
    with pytest.raises(InvalidMessageError, match="300 roots"):
        from_boc(to_boc(*cells))


def test_a_bag_too_large_is_refused() -> None:
    with pytest.raises(InvalidMessageError, match="more than"):
        from_boc(bytes(BOC_BYTES_MAX + 1))
