"""ParticipantRegistry: what was contributed, proven against the roots of settled epochs."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from pytoniq_core import Builder, Cell

from contracts import fees, layout, proof
from contracts.commands import Pause, Resume
from contracts.model import EPOCH_ROOTS_MAX, NANO, Address, Leaf, Lifetime
from contracts.opcodes import Event, Op, Refusal
from tests.contracts.pool_scene import ANYONE, PARTICIPANTS, STAKE, Scene, Sent, leaf
from tests.contracts.registry_cases import address_slice, enter, suspend

ALICE, BOB, CAROL = PARTICIPANTS[:3]


def root_arrives(scene: Scene, epoch: int, root: bytes) -> Sent:
    """The pool tells the root of an epoch, as it does after a settlement."""
    body = layout.body_cell(Op.REGISTRY_SET_EPOCH_ROOT, submitter=ANYONE, epoch=epoch, totals_root=root)
    return scene.send(scene.pool, scene.registry, NANO // 20, body)


def tree_of(*leaves: Leaf) -> proof.TotalsTree:
    return proof.totals_tree(leaves)


ALICES, BOBS = leaf(ALICE, NANO), leaf(BOB, NANO, score=77)
TREE = tree_of(ALICES, BOBS)


@pytest.fixture
def known(scene: Scene) -> Scene:
    """Alice has an entry, and the root of epoch 5 has arrived."""
    enter(scene, ALICE, STAKE)
    assert root_arrives(scene, 5, TREE.root_hash).refusal is None
    return scene


# ---- through a settlement ----


def test_contributions_of_settled_epochs_are_counted(ready: Scene) -> None:
    enter(ready, ALICE, STAKE)
    enter(ready, BOB, STAKE)
    trees = []
    for scores in ((1000, 20), (5, 7)):
        pot = ready.finish_epoch()
        earned = ready.state().landed.total_earned_nanoton + pot
        leaves = [leaf(owner, earned // 2, score=score) for owner, score in zip((ALICE, BOB), scores, strict=True)]
        assert ready.settle(leaves).refusal is None
        trees.append(proof.totals_tree(leaves))
    assert ready.registry_state().roots == {1: trees[0].root_hash, 2: trees[1].root_hash}
    root = int.from_bytes(trees[1].root_hash, "big")
    assert ready.get(ready.registry, "get_epoch_root", 2) == [root]
    assert ready.update_contribution(ALICE, 1, trees[0]).refusal is None
    sent = ready.update_contribution(ALICE, 2, trees[1])
    expected = Lifetime(score=1005, uptime_s=7200, tasks=120, tokens=10_000, epochs=2, last_epoch=2)
    assert ready.participant(ALICE).lifetime == expected
    info = ready.get(ready.registry, "get_contribution_info", address_slice(ALICE))
    assert info == [1005, 7200, 120, 10_000, 2, 2]
    assert ready.participant(BOB).lifetime is None
    (event,) = sent.events
    assert (event.op, event.values) == (Event.EVENT_CONTRIBUTION_COUNTED, {"owner": ALICE, "epoch": 2})
    assert fees.ENTRY_NANOTON - NANO // 40 < sent.received(ALICE) < fees.ENTRY_NANOTON


def test_a_settlement_without_leaves_leaves_no_root(ready: Scene) -> None:
    ready.finish_epoch()
    assert ready.settle([]).refusal is None
    assert ready.registry_state().roots == {}


# ---- what counts ----


def test_an_epoch_counts_once_and_an_older_one_never_after_it(known: Scene) -> None:
    older = tree_of(leaf(ALICE, 1, score=3))
    assert root_arrives(known, 6, older.root_hash).refusal is None
    assert known.update_contribution(ALICE, 6, older).refusal is None
    assert known.update_contribution(ALICE, 6, older).refusal is Refusal.CONTRIBUTION_COUNTED
    assert known.update_contribution(ALICE, 5, TREE).refusal is Refusal.CONTRIBUTION_COUNTED
    lifetime = known.participant(ALICE).lifetime
    assert lifetime is not None
    assert (lifetime.score, lifetime.epochs, lifetime.last_epoch) == (3, 1, 6)


def test_a_figure_of_any_size_is_added(known: Scene) -> None:
    largest = replace(ALICES, score=2**127, tokens=2**63, tasks=2**32 - 1, uptime_s=2**32 - 1)
    assert root_arrives(known, 6, tree_of(largest).root_hash).refusal is None
    assert known.update_contribution(ALICE, 5, TREE).refusal is None
    assert known.update_contribution(ALICE, 6, tree_of(largest)).refusal is None
    lifetime = known.participant(ALICE).lifetime
    assert lifetime is not None
    assert (lifetime.score, lifetime.tokens) == (2**127 + 1000, 2**63 + 5000)


def test_who_is_suspended_or_withdrawing_has_still_contributed(known: Scene) -> None:
    assert known.request_withdrawal(ALICE, STAKE).refusal is None
    assert suspend(known, ALICE).refusal is None
    assert known.update_contribution(ALICE, 5, TREE).refusal is None


def test_a_stranger_may_not_pass_over_an_epoch_that_is_kept(ready: Scene) -> None:
    enter(ready, ALICE, STAKE)
    trees = []
    for earned in (1, 2, 3):
        ready.finish_epoch()
        trees.append(ready.settle_shares({ALICE: earned}))

    def prove(epoch: int, source: Address) -> Refusal | None:
        body = layout.update_contribution_body(ALICE, epoch, trees[epoch - 1].prove(ALICE))
        return ready.to_registry(body, source=source).refusal

    assert prove(2, ANYONE) is Refusal.EPOCH_SKIPPED
    assert prove(1, ANYONE) is None
    assert prove(3, ANYONE) is Refusal.EPOCH_SKIPPED
    assert prove(3, ALICE) is None
    later = layout.update_contribution_body(ALICE, 4, trees[2].prove(ALICE))
    assert ready.to_registry(later, source=ANYONE).refusal is Refusal.EPOCH_UNKNOWN
    lifetime = ready.participant(ALICE).lifetime
    assert lifetime is not None
    assert (lifetime.epochs, lifetime.last_epoch) == (2, 3)


# ---- what does not ----


def update(scene: Scene, owner: Address, epoch: int, cell: Cell) -> Sent:
    return scene.to_registry(layout.update_contribution_body(owner, epoch, cell), source=owner)


def test_wrong_proofs_count_nothing(known: Scene) -> None:
    enter(known, CAROL, STAKE)
    other = tree_of(replace(ALICES, score=10**6), BOBS)
    alices = TREE.prove(ALICE)
    for owner, epoch, cell, refusal in (
        (ALICE, 5, other.prove(ALICE), Refusal.WRONG_ROOT),
        (ALICE, 4, alices, Refusal.EPOCH_UNKNOWN),
        (ALICE, 6, alices, Refusal.EPOCH_UNKNOWN),
        (ALICE, 0, alices, Refusal.CONTRIBUTION_COUNTED),
        (BOB, 5, TREE.prove(BOB), Refusal.NOT_REGISTERED),
        (CAROL, 5, alices, Refusal.NO_LEAF),
        (ALICE, 5, TREE.prove(BOB), Refusal.NO_LEAF),
        (ALICE, 5, Builder().store_bytes(TREE.root_hash).end_cell(), Refusal.NOT_A_PROOF),
    ):
        assert update(known, owner, epoch, cell).refusal is refusal
    assert [p.lifetime for p in known.registry_state().participants] == [None, None]


def pruned(content: Cell) -> Cell:
    bits = (
        Builder().store_uint(0x0101, 16).store_bytes(content.hash).store_uint(content.get_depth(0), 16).end_cell().bits
    )
    return Cell(bits, [], 1)


def test_a_pruned_leaf_proves_nothing(known: Scene) -> None:
    assert TREE.root is not None
    whole = pruned(TREE.root)
    bits = Builder().store_uint(3, 8).store_bytes(TREE.root_hash).store_uint(TREE.root.get_depth(0), 16).end_cell().bits
    assert update(known, ALICE, 5, Cell(bits, [whole], 3)).refusal is Refusal.NO_LEAF


def test_a_paused_pool_counts_nothing(known: Scene) -> None:
    assert known.act(Pause(gov_seqno=known.gov_seqno)).refusal is None
    assert known.update_contribution(ALICE, 5, TREE).refusal is Refusal.CONTRIBUTIONS_PAUSED
    assert known.heartbeat(ALICE).refusal is None
    assert known.act(Resume(gov_seqno=known.gov_seqno)).refusal is None
    assert known.update_contribution(ALICE, 5, TREE).refusal is None


# ---- which roots are kept ----


def number(epoch: int) -> bytes:
    return hashlib.sha256(b"root %d" % epoch).digest()


def test_the_roots_of_the_last_64_epochs_are_kept(scene: Scene) -> None:
    for epoch in range(1, EPOCH_ROOTS_MAX + 6):
        assert root_arrives(scene, epoch, number(epoch)).refusal is None
        kept = scene.registry_state().roots
        assert kept == {e: number(e) for e in range(max(1, epoch - EPOCH_ROOTS_MAX + 1), epoch + 1)}


def test_an_epoch_without_root_ends_the_time_of_an_old_one(scene: Scene) -> None:
    for epoch in range(1, EPOCH_ROOTS_MAX + 1):
        assert root_arrives(scene, epoch, number(epoch)).refusal is None
    assert root_arrives(scene, EPOCH_ROOTS_MAX + 1, bytes(32)).refusal is None
    assert list(scene.registry_state().roots) == list(range(2, EPOCH_ROOTS_MAX + 1))


def test_never_more_than_64_roots_even_if_some_did_not_arrive(scene: Scene) -> None:
    for epoch in range(1, 3 * EPOCH_ROOTS_MAX, 2):
        assert root_arrives(scene, epoch, number(epoch)).refusal is None
        assert len(scene.registry_state().roots) <= EPOCH_ROOTS_MAX
    assert root_arrives(scene, 1000, number(1000)).refusal is None
    assert len(scene.registry_state().roots) <= EPOCH_ROOTS_MAX


def test_a_dropped_root_proves_nothing_any_more(known: Scene) -> None:
    assert root_arrives(known, 5 + EPOCH_ROOTS_MAX, number(1)).refusal is None
    assert known.update_contribution(ALICE, 5, TREE).refusal is Refusal.EPOCH_UNKNOWN
    with pytest.raises(AssertionError, match="EPOCH_UNKNOWN"):
        known.get(known.registry, "get_epoch_root", 5)
