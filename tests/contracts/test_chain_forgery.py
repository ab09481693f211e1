"""Forged proofs: every hash in them leads to the block that was asked for, and what they say is a lie."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from handmade_chain import HandmadeChain
from pytoniq_core import Address as PytoniqAddress
from pytoniq_core import Builder, Cell, CellTypes
from pytoniq_core.boc.tvm_bitarray import TvmBitarray
from pytoniq_core.proof.check_proof import check_account_proof
from pytoniq_core.tl.block import BlockIdExt

from contracts.chain_proofs import read_account, read_header
from contracts.chain_values import ABSENT, Account, Block
from contracts.devchain.accounts import to_pytoniq
from contracts.devchain.boc import to_boc
from contracts.devchain.node import Node
from contracts.devchain.storage import Storage
from contracts.errors import ChainConflictError, UnreadableStateError
from contracts.model import NANO, Address
from tests.contracts.chain_scene import FUNDS, GENESIS, NOBODY, START_S, own_address, query

OURS = own_address()
INFO, VALUES, UPDATE, EXTRA = range(4)


def read(answer: dict[str, Any], block: Block, address: Address = OURS) -> Account:
    return read_account(answer, address, block, trust_level=1)


def served(directory: Path, genesis: Mapping[Address, int], address: Address = OURS) -> tuple[dict[str, Any], Block]:
    """A server's honest answer about `address` on a chain that begins with `genesis`, and its block."""
    with Storage(directory) as storage:
        node = Node(storage, genesis, now=START_S)
        block = node.seal(START_S + 1).masterchain_id
        header = read_header(query(node, "getBlockHeader", id=block, mode=0))
        account = {"workchain": address.workchain, "id": address.account}
        return query(node, "getAccountState", id=block, account=account), header


@pytest.fixture
def honest(tmp_path: Path) -> tuple[dict[str, Any], Block]:
    return served(tmp_path / "honest", GENESIS)


@pytest.fixture
def other(tmp_path: Path) -> dict[str, Any]:
    """The answer of another chain, on which the same account is rich."""
    return served(tmp_path / "other", {OURS: 10**6 * NANO})[0]


def exotic(kind: int, data: bytes, *refs: Cell) -> Cell:
    bits = TvmBitarray(1023)
    bits.frombytes(data)
    return Cell(bits, list(refs), kind)


def proof_of(cell: Cell) -> Cell:
    depth = cell.get_depth(0).to_bytes(2, "big")
    return exotic(CellTypes.merkle_proof, b"\x03" + cell.get_hash(0) + depth, cell)


def with_ref(cell: Cell, index: int, ref: Cell) -> Cell:
    return Cell(cell.bits, [*cell.refs[:index], ref, *cell.refs[index + 1 :]], cell.type_)


def naming_another_state(header: Cell, state: Cell) -> Cell:
    """`header` with its own hash, whose state update's child claims to be `state` at level 0."""
    child = header[UPDATE][1]
    hashes = state.get_hash(0) + child.get_hash(1)
    depths = state.get_depth(0).to_bytes(2, "big") + child.get_depth(1).to_bytes(2, "big")
    pruned = exotic(CellTypes.pruned_branch, b"\x01\x03" + hashes + depths)
    forged = with_ref(header, UPDATE, with_ref(header[UPDATE], 1, pruned))
    assert forged.get_hash(0) == header.get_hash(0), "the forgery keeps the block's hash"
    assert forged[UPDATE][1].get_hash(0) == state.get_hash(0)
    return forged


def test_a_pruned_branch_cannot_name_another_shard_state(
    honest: tuple[dict[str, Any], Block], other: dict[str, Any]
) -> None:
    answer, block = honest
    header, state = Cell.from_boc(answer["proof"])[0][0], Cell.from_boc(other["proof"])[1]
    forged = answer | {
        "proof": to_boc(proof_of(naming_another_state(header, state[0])), state),
        "state": other["state"],
    }
    believed_by_pytoniq = check_account_proof(
        forged["proof"],
        BlockIdExt.from_dict(answer["shardblk"]),
        PytoniqAddress((OURS.workchain, OURS.account)),
        Cell.one_from_boc(forged["state"]),
        return_account_descr=True,
    )
    assert believed_by_pytoniq is not None, "should this fail, rule 2 of chain_proofs may go"
    with pytest.raises(ChainConflictError, match="not of this block's state"):
        read(forged, block)
    assert read(answer, block).balance_nanoton == FUNDS


def test_a_pruned_branch_cannot_name_another_masterchain_state(
    honest: tuple[dict[str, Any], Block], other: dict[str, Any]
) -> None:
    answer, block = honest
    header, state = Cell.from_boc(answer["shard_proof"])[0][0], Cell.from_boc(other["shard_proof"])[1]
    forged = other | {
        "id": answer["id"],
        "shard_proof": to_boc(proof_of(naming_another_state(header, state[0])), state),
    }
    with pytest.raises(ChainConflictError, match="not of this block's state"):
        read(forged, block)


def shown_as(answer: dict[str, Any], state: Cell) -> dict[str, Any]:
    """`answer` with a shard block that ends in `state`; only the masterchain could tell (trust level 2)."""
    header = Cell.from_boc(answer["proof"])[0][0]
    old = header[UPDATE][0]
    data = b"\x04" + old.get_hash(0) + state.get_hash(0)
    data += old.get_depth(0).to_bytes(2, "big") + state.get_depth(0).to_bytes(2, "big")
    block = with_ref(header, UPDATE, exotic(CellTypes.merkle_update, data, old, state))
    shard = answer["shardblk"] | {"root_hash": block.get_hash(0).hex()}
    return answer | {"shardblk": shard, "proof": to_boc(proof_of(block), proof_of(state)), "state": b""}


def shard_state(bits: int, prefix: int, workchain: int = 0) -> Cell:
    """A state without accounts of one shard of `workchain`: where its accounts begin with `prefix`."""
    builder = Builder().store_uint(0x9023AFE2, 32).store_int(-217, 32)
    builder.store_uint(0, 2).store_uint(bits, 6).store_int(workchain, 32).store_uint(prefix << (64 - bits), 64)
    builder.store_bytes(bytes(28)).store_bit(0)
    accounts = Builder().store_bit(0).store_uint(0, 5).store_uint(0, 5).store_bit(0).end_cell()
    return builder.store_ref(Cell.empty()).store_ref(accounts).store_ref(Cell.empty()).end_cell()


def test_another_shard_does_not_prove_that_an_account_is_absent(honest: tuple[dict[str, Any], Block]) -> None:
    answer, block = honest
    own_bits = OURS.account[0] >> 5
    for bits, prefix in ((0, 0), (3, own_bits), (1, own_bits >> 2)):
        forged = shown_as(answer, shard_state(bits, prefix))
        assert read_account(forged, OURS, block, trust_level=2) == ABSENT
        with pytest.raises(ChainConflictError, match="no such shard block"):
            read_account(forged, OURS, block, trust_level=1)
    for bits, prefix in ((3, own_bits ^ 1), (1, own_bits >> 2 ^ 1)):
        with pytest.raises(ChainConflictError, match="another shard"):
            read_account(shown_as(answer, shard_state(bits, prefix)), OURS, block, trust_level=2)
    with pytest.raises(ChainConflictError, match="another workchain"):
        read_account(shown_as(answer, shard_state(0, 0, workchain=1)), OURS, block, trust_level=2)


def test_a_pruned_path_does_not_prove_absence(tmp_path: Path) -> None:
    """The honest proof shows another account's path; ours is left out of it, not absent."""
    neighbours = {OURS: NANO, **{Address(0, bytes([i]) * 32): NANO for i in range(0, 256, 8)}}
    answer, block = served(tmp_path, neighbours, Address(0, bytes(32)))
    forged = answer | {"state": b""}
    with pytest.raises(ChainConflictError, match="left out"):
        read(forged, block)


def test_an_absent_account_is_proven_absent(tmp_path: Path) -> None:
    answer, block = served(tmp_path, GENESIS, NOBODY)
    assert read(answer, block, NOBODY) == ABSENT
    invented = Builder().store_bit(0).end_cell().to_boc()
    with pytest.raises(ChainConflictError, match="there is none"):
        read(answer | {"state": invented}, block, NOBODY)


def test_a_state_with_a_part_left_out_is_no_state(honest: tuple[dict[str, Any], Block]) -> None:
    answer, block = honest
    whole = Cell.one_from_boc(answer["state"])
    data = b"\x01\x01" + whole.get_hash(0) + whole.get_depth(0).to_bytes(2, "big")
    pruned = exotic(CellTypes.pruned_branch, data)
    with pytest.raises(ChainConflictError, match="another state"):
        read(answer | {"state": to_boc(pruned)}, block)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (b"", "not enough bytes"),
        (b"\xb5\xee\x9c\x72" + bytes(40), f"state of {OURS}"),
        (Builder().store_uint(1, 8).end_cell().to_boc(), "another state"),
        (bytes(5001), "5001 bytes, at most 5000 are read"),
    ],
)
def test_the_state_of_a_stranger_is_nobody_s_lie(
    honest: tuple[dict[str, Any], Block], state: bytes, message: str
) -> None:
    answer, block = honest
    read_account(answer, OURS, block, trust_level=1, state_bytes_max=5000)
    with pytest.raises(UnreadableStateError, match=message):
        read_account(answer | {"state": state}, OURS, block, trust_level=1, state_bytes_max=5000)
    with pytest.raises(ChainConflictError):
        read(answer | {"state": state}, block)


def test_the_proof_of_a_stranger_s_account_has_to_hold(honest: tuple[dict[str, Any], Block], tmp_path: Path) -> None:
    answer, block = honest
    with pytest.raises(ChainConflictError):
        read_account(answer | {"proof": answer["shard_proof"]}, OURS, block, trust_level=1, state_bytes_max=5000)
    absent, block = served(tmp_path / "absent", GENESIS, NOBODY)
    assert read_account(absent, NOBODY, block, trust_level=1, state_bytes_max=5000) == ABSENT
    with pytest.raises(ChainConflictError, match="there is none"):
        read_account(absent | {"state": b"some"}, NOBODY, block, trust_level=1, state_bytes_max=5000)


async def test_a_frozen_account_is_seen_as_one() -> None:
    chain = HandmadeChain()
    frozen = Builder().store_bit(1).store_address(to_pytoniq(OURS))
    frozen.store_var_uint(1, 3).store_var_uint(103, 3).store_uint(0, 3).store_uint(0, 32).store_bit(0)
    frozen.store_uint(0, 64).store_coins(0).store_bit(0).store_uint(1, 2).store_bytes(bytes(32))
    entry = Builder().store_ref(frozen.end_cell()).store_bytes(bytes(32)).store_uint(0, 64).end_cell()
    chain.accounts = chain.accounts.with_value(int.from_bytes(OURS.account, "big"), entry, NANO)
    chain.seal(START_S)
    account = await chain.account(OURS)
    assert (account.active, account.frozen) == (False, True)


def test_a_masterchain_account_needs_the_masterchain_block(honest: tuple[dict[str, Any], Block]) -> None:
    answer, block = honest
    with pytest.raises(ChainConflictError, match="another workchain"):
        read(answer | {"shardblk": answer["id"]}, block)
    with pytest.raises(ChainConflictError):
        read(answer | {"shardblk": answer["id"]}, block, Address(-1, OURS.account))


def test_a_header_of_another_number_is_refused(tmp_path: Path) -> None:
    with Storage(tmp_path) as storage:
        node = Node(storage, GENESIS, now=START_S)
        second = node.seal(START_S + 1).masterchain_id
        header = query(node, "getBlockHeader", id=second, mode=0)
        shard = query(node, "getBlockHeader", id=node.head.shard_id, mode=0)
    assert read_header(header, seqno=2).seqno == 2
    with pytest.raises(ChainConflictError, match="asked for 3, got 2"):
        read_header(header, seqno=3)
    with pytest.raises(ChainConflictError, match="not of the masterchain"):
        read_header(shard)
