"""Totals: one root for one set of leaves, and proofs that hold for exactly one leaf."""

from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytoniq_core import Cell

from contracts.errors import InvalidValueError
from contracts.layout import dictionary
from contracts.layout.values import read_leaf
from contracts.model import ZERO_HASH, Address, Leaf
from contracts.proof import totals_tree
from tests.contracts.pool_scene import PARTICIPANTS, leaf

LEAVES = [leaf(participant, 1000 + i) for i, participant in enumerate(PARTICIPANTS)]

# Made with @ton/core 0.63 (Dictionary.generateMerkleProof), over the leaves of `vector_leaves`.
VECTOR_ROOT = "60ec66c614cf280208304ccfbb89d8e410bbe407e847460dbe9676fecb4b5512"
VECTOR_PROOF = "c4aaa25841705e333de0b308c1174483e212cf5ba04e06a24374f60ae70914d7"


def vector_leaves() -> list[Leaf]:
    return [
        Leaf(
            participant=Address(0, hashlib.sha256(b"p%d" % i).digest()),
            earned_nanoton=10**9 + i,
            score=i,
            tokens=5_000_000,
            tasks=1200,
            uptime_s=604_000,
            quality=950,
            reputation=500,
            flags=1,
        )
        for i in range(1000)
    ]


def test_root_and_proof_equal_those_of_ton_core() -> None:
    tree = totals_tree(vector_leaves())
    assert tree.root_hash.hex() == VECTOR_ROOT
    assert tree.prove(vector_leaves()[700].participant).hash.hex() == VECTOR_PROOF


def test_no_leaves_no_root() -> None:
    tree = totals_tree([])
    assert tree.root_hash == ZERO_HASH
    with pytest.raises(InvalidValueError):
        tree.prove(PARTICIPANTS[0])


@given(st.permutations(LEAVES))
def test_order_does_not_matter(leaves: list[Leaf]) -> None:
    assert totals_tree(leaves).root_hash == totals_tree(LEAVES).root_hash


def test_any_change_changes_the_root() -> None:
    roots = {totals_tree(LEAVES).root_hash, totals_tree(LEAVES[1:]).root_hash}
    roots.add(totals_tree([leaf(PARTICIPANTS[0], 999), *LEAVES[1:]]).root_hash)
    roots.add(totals_tree([leaf(PARTICIPANTS[0], 1000, score=999), *LEAVES[1:]]).root_hash)
    assert len(roots) == 4


def test_a_participant_stands_once() -> None:
    with pytest.raises(InvalidValueError, match="twice"):
        totals_tree([*LEAVES, leaf(PARTICIPANTS[0], 1)])


def test_nobody_else_can_be_proven() -> None:
    tree = totals_tree(LEAVES)
    for stranger in (Address(0, bytes(32)), Address(0, b"\xff" * 32), Address(-1, PARTICIPANTS[0].account)):
        with pytest.raises(InvalidValueError):
            tree.prove(stranger)


@pytest.mark.parametrize("count", [1, 2, 3, 10, 500])
def test_a_proof_holds_its_leaf_and_the_root(count: int) -> None:
    rng = random.Random(count)
    leaves = [leaf(Address(0, rng.randbytes(32)), i) for i in range(count)]
    tree = totals_tree(leaves)
    for wanted in rng.sample(leaves, min(count, 20)):
        proof = tree.prove(wanted.participant)
        assert proof.bits.tobytes()[:33] == b"\3" + tree.root_hash
        (part,) = proof.refs
        assert part.get_hash(0) == tree.root_hash
        assert leaves_in(part) == [wanted]
        assert len(proof.to_boc()) < 40 * (count.bit_length() + 4) * 2


@pytest.mark.parametrize(("count", "wanted"), [(1, 1), (10, 3), (10, 10), (500, 1), (500, 200)])
def test_one_proof_holds_many_leaves(count: int, wanted: int) -> None:
    rng = random.Random(count + wanted)
    leaves = [leaf(Address(0, rng.randbytes(32)), i) for i in range(count)]
    tree = totals_tree(leaves)
    chosen = rng.sample(leaves, wanted)
    proof = tree.prove_many(leaf.participant for leaf in chosen)
    assert proof.bits.tobytes()[:33] == b"\3" + tree.root_hash
    (part,) = proof.refs
    assert part.get_hash(0) == tree.root_hash
    shown = {leaf.participant for leaf in leaves_in(part)}
    assert shown == {leaf.participant for leaf in chosen}
    assert tree.prove_many([chosen[0].participant] * 2).hash == tree.prove(chosen[0].participant).hash


def test_many_are_proven_or_none() -> None:
    tree = totals_tree(LEAVES)
    for participants in ([], [PARTICIPANTS[0], Address(0, bytes(32))], [Address(-1, PARTICIPANTS[0].account)]):
        with pytest.raises(InvalidValueError):
            tree.prove_many(participants)
    with pytest.raises(InvalidValueError):
        totals_tree([]).prove_many([])


def leaves_in(part: Cell) -> list[Leaf]:
    """What can be read of a proven part: the entries that are not behind a pruned branch."""
    found = []
    pending = [(part, 0, 256)]
    while pending:
        cell, prefix, left = pending.pop()
        if cell.is_exotic:
            continue
        reader = dictionary.Reader(cell, "proof")
        label, length = dictionary._read_label(reader, left)
        prefix, left = (prefix << length) | label, left - length
        if left == 0:
            found.append(read_leaf(prefix, reader))
        else:
            pending += [(cell.refs[0], prefix << 1, left - 1), (cell.refs[1], (prefix << 1) | 1, left - 1)]
    return found
