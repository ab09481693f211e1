"""Dictionaries, proofs, blocks, and the chain on disk."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytoniq_core import Builder, Cell, Slice
from pytoniq_core.proof.check_proof import check_account_proof, check_shard_proof
from pytoniq_core.tl.block import BlockIdExt
from pytoniq_core.tlb.block import Block

from contracts.devchain.accounts import to_pytoniq
from contracts.devchain.errors import BlockUnknownError, StorageBusyError, StorageCorruptError
from contracts.devchain.node import Node
from contracts.devchain.storage import FILE_NAME, Storage
from contracts.devchain.tl import BlockId
from contracts.devchain.trie import Trie, merkle_proof
from contracts.model import NANO
from tests.contracts.chain_scene import (
    GENESIS,
    RECEIVER,
    START_S,
    external,
    message,
    own_address,
    query,
)


def value(number: int) -> Cell:
    return Builder().store_uint(number, 64).end_cell()


def read(trie: Trie) -> dict[int, int]:
    """The trie as pytoniq reads it."""
    found = trie.cell().begin_parse().load_hashmap_aug_e(trie.key_bits, lambda s: s.load_uint(64), _read_extra)
    keys: dict[int, int] = found[0]
    return keys


def _read_extra(slice_: Slice) -> None:
    slice_.load_uint(5)
    slice_.load_coins()
    slice_.load_bit()


@pytest.mark.parametrize("key_bits", [8, 256])
@given(data=st.data())
def test_a_trie_is_the_dictionary_that_pytoniq_reads(key_bits: int, data: st.DataObject) -> None:
    keys = st.integers(0, 2**key_bits - 1) | st.integers(0, 7)
    items = data.draw(st.lists(st.tuples(keys, st.integers(0, 2**60)), min_size=1, max_size=30))
    trie, model = Trie(key_bits, 5), dict[int, int]()
    for key, number in items:
        trie = trie.with_value(key, value(number), number)
        model[key] = number
    assert read(trie) == model
    assert trie.total == sum(model.values())
    rebuilt = Trie(key_bits, 5)
    for key in sorted(model, reverse=True):
        rebuilt = rebuilt.with_value(key, value(model[key]), model[key])
    assert rebuilt.cell() == trie.cell(), "the cell must not depend on the order of insertion"
    for key in (*model, data.draw(keys)):
        assert trie.value(key) == (value(model[key]) if key in model else None)
        proof = merkle_proof(trie.cell(), trie.path(key))
        assert proof[0].get_hash(0) == trie.cell().hash


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    with Storage(tmp_path) as storage:
        yield storage


@pytest.fixture
def node(storage: Storage) -> Node:
    return Node(storage, GENESIS, now=START_S)


def test_a_message_shows_with_the_next_block_and_not_before(node: Node) -> None:
    before = node.head
    node.send(external(0, [message()]), START_S + 1)
    assert node.account(node.head, RECEIVER.account)[0] is None
    after = node.seal(START_S + 2)
    assert node.account(after, RECEIVER.account)[1].balance_nanoton == NANO
    assert node.account(before, RECEIVER.account)[0] is None, "a block never changes"
    assert [t.address for t in after.transactions] == [own_address(), RECEIVER]
    assert all(after.start_lt < t.lt <= after.end_lt for t in after.transactions)


def test_pytoniq_reads_the_blocks(node: Node) -> None:
    node.send(external(0, [message()]), START_S + 1)
    step = node.seal(START_S + 2)
    shard = Block.deserialize(step.shard_block.begin_parse())
    master = Block.deserialize(step.masterchain_block.begin_parse())
    assert shard.info.gen_utime == master.info.gen_utime == START_S + 1, "a block's time is its messages' time"
    assert {t.now for t in step.transactions} == {START_S + 1}
    accounts, _ = shard.extra.account_blocks
    assert set(accounts) == {int.from_bytes(a.account, "big") for a in (own_address(), RECEIVER)}
    described = master.extra.custom.shard_hashes[0].list[0]
    assert described.root_hash == step.shard_id.root_hash
    assert master.info.prev_ref.prev.root_hash == node.step_by_seqno(step.seqno - 1).masterchain_id.root_hash


def test_pytoniqs_own_checks_hold(node: Node) -> None:
    step = node.seal(START_S + 2)
    address = own_address()
    fields = {"id": step.masterchain_id, "account": {"workchain": 0, "id": address.account}}
    answer = query(node, "getAccountState", **fields)
    blk, shard = BlockIdExt.from_dict(answer["id"]), BlockIdExt.from_dict(answer["shardblk"])
    check_shard_proof(answer["shard_proof"], blk, shard)
    state = Cell.one_from_boc(answer["state"])
    check_account_proof(answer["proof"], shard, to_pytoniq(address), state)


def test_time_never_goes_back(node: Node) -> None:
    node.seal(START_S + 10)
    assert node.seal(START_S - 1000).time_s == START_S + 10


def test_lookups(node: Node) -> None:
    steps = [node.seal(START_S + 10 * i) for i in range(1, 6)]
    for step in steps:
        assert node.step(step.masterchain_id).seqno == node.step(step.shard_id).seqno == step.seqno
        assert node.step_by_time(step.time_s + 9).seqno == step.seqno
        assert node.step_by_lt(step.end_lt).seqno == step.seqno
    forged = BlockId(workchain=-1, seqno=2, root_hash=bytes(32), file_hash=bytes(32))
    for unknown in (
        lambda: node.step(forged),
        lambda: node.step_by_seqno(99),
        lambda: node.step_by_seqno(0),
        lambda: node.step_by_time(START_S - 1),
        lambda: node.step_by_lt(10**18),
    ):
        with pytest.raises(BlockUnknownError):
            unknown()


def test_old_blocks_are_made_again_as_they_were(node: Node) -> None:
    node.send(external(0, [message()]), START_S + 1)
    first = node.seal(START_S + 1).tip()
    for i in range(40):
        node.seal(START_S + 2 + i)
    assert node.step_by_seqno(first.seqno).tip() == first


class TestRestart:
    def run(self, directory: Path, blocks: int, *, history_blocks: int = 2000) -> tuple[list[BlockId], bytes]:
        with Storage(directory, history_blocks=history_blocks) as storage:
            node = Node(storage, GENESIS, now=START_S)
            for _ in range(blocks):
                number = node.ledger.get_method(own_address(), "seqno")[1]
                node.send(external(number[0] if number else 0, [message()]), node.head.time_s + 3)
                node.seal(node.head.time_s + 5)
            ids = []
            for seqno in range(1, node.head.seqno + 1):
                try:
                    ids.append(node.step_by_seqno(seqno).masterchain_id)
                except BlockUnknownError:
                    ids.append(None)
            return ids, node.liteserver_seed

    def test_it_continues_the_chain(self, tmp_path: Path) -> None:
        ids, seed = self.run(tmp_path, 5)
        again, same_seed = self.run(tmp_path, 3)
        assert (again[: len(ids)], same_seed) == (ids, seed)
        assert len(again) == len(ids) + 3

    def test_what_was_not_sealed_is_lost(self, tmp_path: Path) -> None:
        self.run(tmp_path, 1)
        with Storage(tmp_path) as storage:
            node = Node(storage, {}, now=START_S)
            balance = node.ledger.account(own_address()).balance_nanoton
            node.send(external(1, [message()]), node.head.time_s)
        with Storage(tmp_path) as storage:
            assert Node(storage, {}, now=START_S).ledger.account(own_address()).balance_nanoton == balance

    def test_it_forgets_what_is_older_than_the_history(self, tmp_path: Path) -> None:
        ids, _ = self.run(tmp_path, 200, history_blocks=20)
        assert [i is not None for i in ids] == [False] * 181 + [True] * 20
        kept, _ = self.run(tmp_path, 0, history_blocks=20)
        assert kept[-20:] == ids[-20:]
        with Storage(tmp_path) as storage:
            node = Node(storage, {}, now=START_S)
            assert 199 * NANO < node.ledger.account(RECEIVER).balance_nanoton < 200 * NANO, "all but storage fees"

    def test_a_second_process_is_refused(self, tmp_path: Path) -> None:
        with Storage(tmp_path), pytest.raises(StorageBusyError, match="another process"):
            Storage(tmp_path)

    def test_garbage_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / FILE_NAME).write_bytes(b"this is no database, but it is long enough" * 100)
        with pytest.raises(StorageCorruptError, match="start with an empty directory"):
            Storage(tmp_path)

    def test_another_programs_database_is_refused(self, tmp_path: Path) -> None:
        with sqlite3.connect(tmp_path / FILE_NAME) as database:
            database.execute("CREATE TABLE other (x)")
        database.close()
        with pytest.raises(StorageCorruptError):
            Storage(tmp_path)

    @pytest.mark.parametrize(
        "damage",
        [
            "UPDATE account SET cell = x'b5ee9c72' WHERE seqno = 3",
            "UPDATE account SET cell = (SELECT cell FROM account WHERE seqno = 4) WHERE seqno = 3",
            "UPDATE block SET time_s = time_s + 1 WHERE seqno = 3",
            "DELETE FROM block WHERE seqno = 3",
            "DELETE FROM tx WHERE seqno = 3",
            "DELETE FROM meta WHERE key = 'seed'",
        ],
    )
    def test_a_changed_history_is_refused(self, tmp_path: Path, damage: str) -> None:
        self.run(tmp_path, 5)
        with sqlite3.connect(tmp_path / FILE_NAME) as database:
            assert database.execute(damage).rowcount > 0
        database.close()
        with Storage(tmp_path) as storage, pytest.raises(StorageCorruptError):
            assert Node(storage, GENESIS, now=START_S).liteserver_seed
