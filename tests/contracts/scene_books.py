"""What must hold after every message to a pool, whatever was sent (CONTRACTS, "Tests that must exist")."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from contracts import layout
from contracts.devchain.accounts import AppliedTransaction
from contracts.layout.storage import REGISTRY_RECORD
from contracts.model import ZERO_HASH, Address, Leaf, PoolState, RegistryState, RewardsState, SettlePayload
from contracts.opcodes import Event

if TYPE_CHECKING:
    from tests.contracts.pool_scene import Scene


class Books:
    """What one scene has seen: TON that entered and burnt, every event, what the settlements said."""

    def __init__(self) -> None:
        self.entered = 0
        self.burnt = 0
        self.accounts: set[Address] = set()
        self.events: list[layout.Body] = []
        self.slashed_in = 0
        self.pots = 0
        """Of all finalized epochs."""
        self.leaves: dict[bytes, dict[Address, Leaf]] = {}
        """Totals root -> its leaves, where the test has made them."""
        self.landed: set[bytes] = set()
        self.before: tuple[int, ...] = ()

    def record(self, value: int, transactions: Iterable[AppliedTransaction]) -> list[layout.Body]:
        """Take note of what one message caused; the events that it logged."""
        self.entered += value
        logged: list[layout.Body] = []
        for transaction in transactions:
            self.burnt += transaction.fees_nanoton + sum(out.fwd_fee_nanoton for out in transaction.out_messages)
            self.accounts.add(transaction.address)
            logged += [layout.read_event(out.body) for out in transaction.out_messages if out.dest is None]
        for event in logged:
            if event.op == Event.EVENT_SLASHED_RECEIVED:
                self.slashed_in += event.values["amount"]
            if event.op == Event.EVENT_EPOCH_FINALIZED:
                self.pots += event.values["pot"]
        self.events += logged
        return logged

    def know(self, leaves: Iterable[Leaf], payload: SettlePayload) -> None:
        """Remember the leaves behind a settlement, to hold payments against them."""
        self.leaves[payload.totals_root] = {leaf.participant: leaf for leaf in leaves}


def check(scene: Scene) -> None:
    """Assert every invariant of the pool in `scene`, which is initialised."""
    pool, rewards, registry = scene.pool_state(), scene.state(), scene.registry_state()
    books = scene.books
    assert books.entered == books.burnt + sum(scene.balance(address) for address in books.accounts)
    _check_rewards(scene, rewards)
    _check_registry(scene, registry)
    _check_pool(pool, rewards, registry)
    now = (rewards.distributed_nanoton, rewards.fees_collected_nanoton, rewards.current_epoch, rewards.landed.epoch)
    now = (*now, rewards.landed.total_earned_nanoton, pool.gov_seqno, pool.phase, registry.counters_seqno)
    assert all(was <= is_ for was, is_ in zip(books.before, now, strict=False)), "something went back"
    books.before = now


def _check_rewards(scene: Scene, state: RewardsState) -> None:
    assert scene.balance(scene.rewards) >= state.liabilities_nanoton
    assert state.distributed_nanoton == sum(state.paid_nanoton.values())
    assert state.distributed_nanoton <= state.landed.total_earned_nanoton <= scene.books.pots
    assert [epoch.epoch for epoch in state.open_epochs] == list(range(state.landed.epoch + 1, state.current_epoch))
    ever = state.received_before_nanoton + state.received_nanoton + scene.books.slashed_in
    assert state.liabilities_nanoton + state.distributed_nanoton + state.fees_collected_nanoton == ever
    _check_paid(scene.books, state)


def _check_paid(books: Books, state: RewardsState) -> None:
    """Nobody was paid more than a leaf that landed says, where all of these are known."""
    books.landed.add(state.landed.totals_root)
    if not books.landed - {ZERO_HASH} <= books.leaves.keys():
        return
    for account, paid in state.paid_nanoton.items():
        trees = [books.leaves[root] for root in books.landed if root in books.leaves]
        assert paid <= max(tree[Address(0, account)].earned_nanoton for tree in trees if Address(0, account) in tree)


def _check_registry(scene: Scene, state: RegistryState) -> None:
    """That its counters are the sums of its entries is checked by reading it."""
    assert scene.balance(scene.registry) >= state.total_stake_nanoton + state.slashed_nanoton
    data = scene.ledger.account(scene.registry).data
    assert data is not None
    root = REGISTRY_RECORD.parse(data)["node_keys"]
    owners = {}
    for key, value in layout.dictionary.entries(root, 256, entries_max=12_000, name="node key"):
        owners[key.to_bytes(32, "big")] = value.octets(32)
        value.end()
    assert owners == {p.node_key: p.address.account for p in state.participants}


def _check_pool(pool: PoolState, rewards: RewardsState, registry: RegistryState) -> None:
    assert (pool.active_count, pool.pooled_stake_nanoton) == (registry.active_count, registry.total_stake_nanoton)
    assert pool.counters_seqno == registry.counters_seqno
    assert (rewards.pool, rewards.registry) == (registry.pool, pool.registry)
    assert registry.rewards in (None, pool.rewards)
    assert (pool.phase == 0) == (pool.operator_set is None)
