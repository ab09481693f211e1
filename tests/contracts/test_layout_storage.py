"""Storages: written and read back, strict, bounded, and honest about their sums."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytoniq_core import Builder, Cell

from contracts import layout
from contracts.errors import ContractAbsentError, InvalidCellError, InvalidValueError
from contracts.layout import storage
from contracts.layout.codec import Codec
from contracts.model import (
    OPEN_EPOCHS_MAX,
    Address,
    CertificateKind,
    Landed,
    OpenEpoch,
    Participant,
    PinnedTerms,
    PoolState,
    PoolStatus,
    Proposal,
    RewardsState,
)
from tests.contracts.cell_values import (
    mutated,
)
from tests.contracts.pool_scene import ANYONE, OWNER, PARTICIPANTS, TERMS, Scene, leaf
from tests.contracts.pool_scene import PARAMS as SCENE_PARAMS
from tests.contracts.storage_values import POOLS, registries, registry_of, rewards_states
from tests.contracts.unchecked import unchecked

CASES: list[tuple[str, Codec[Any], Any, st.SearchStrategy[Any]]] = [
    ("pool", storage.POOL, layout.read_pool, POOLS),
    ("rewards", storage.REWARDS, layout.read_rewards, rewards_states()),
    ("registry", storage.REGISTRY, layout.read_registry, registries()),
]
IDS = [name for name, *_ in CASES]


@pytest.mark.parametrize(("name", "codec", "read", "states"), CASES, ids=IDS)
def test_a_storage_survives(name: str, codec: Codec[Any], read: Any, states: st.SearchStrategy[Any]) -> None:
    @settings(max_examples=60)
    @given(states)
    def survives(state: Any) -> None:
        cell = layout.parse_boc(codec.cell(state).to_boc())
        assert read(cell) == state

    survives()


@pytest.mark.parametrize(("name", "codec", "read", "states"), CASES, ids=IDS)
def test_a_broken_storage_is_refused(name: str, codec: Codec[Any], read: Any, states: st.SearchStrategy[Any]) -> None:
    """What was changed reads as something else, or is refused by name; nothing else happens."""

    @settings(max_examples=150)
    @given(states, st.data())
    def refused(state: Any, data: st.DataObject) -> None:
        cell = codec.cell(state)
        changed = mutated(cell, data)
        try:
            again = read(changed)
        except (InvalidCellError, ContractAbsentError):
            return
        assert name != "rewards" or codec.cell(again).hash == changed.hash

    refused()


def rewards_state(**over: Any) -> RewardsState:
    pinned = PinnedTerms(set_id=1, terms=TERMS)
    landed = Landed(
        epoch=0,
        payload_hash=bytes(32),
        totals_root=bytes(32),
        previous_root=bytes(32),
        total_earned_nanoton=5,
        settled_s=0,
    )
    state = RewardsState(
        pool=OWNER, registry=ANYONE, current_epoch=1, current_start_s=1, current_end_s=2, epoch_duration_s=1,
        running=pinned, next=pinned, received_nanoton=10, carried_nanoton=20, open_pots_nanoton=0,
        pending_fees_nanoton=40, received_before_nanoton=0, distributed_nanoton=2, fees_collected_nanoton=0,
        open_epochs=(), landed=landed, paid_nanoton={},
    )  # fmt: skip
    return replace(state, **over)


def open_epoch(number: int) -> OpenEpoch:
    return OpenEpoch(
        epoch=number, start_s=1, end_s=2, finalized_s=3, pot_nanoton=100, fee_nanoton=1,
        pinned=PinnedTerms(set_id=4, terms=TERMS),
    )  # fmt: skip


def test_what_the_rewards_contract_owes() -> None:
    state = rewards_state(open_epochs=(open_epoch(1), open_epoch(2)), open_pots_nanoton=200)
    assert state.unpaid_nanoton == 3
    assert state.liabilities_nanoton == 10 + 20 + 200 + 40 + 3
    assert (state.open_epochs[0].set_id, state.open_epochs[0].policy_hash) == (4, TERMS.policy_hash)


@pytest.mark.parametrize(
    "state",
    [
        rewards_state(distributed_nanoton=6),
        rewards_state(open_pots_nanoton=1),
        rewards_state(
            open_epochs=tuple(open_epoch(i) for i in range(1, OPEN_EPOCHS_MAX + 2)),
            open_pots_nanoton=100 * (OPEN_EPOCHS_MAX + 1),
        ),
    ],
    ids=["paid more than earned", "pots that are not there", "too many open epochs"],
)
def test_rewards_that_contradict_themselves(state: RewardsState) -> None:
    with pytest.raises(InvalidCellError):
        layout.read_rewards(storage.REWARDS.cell(state))


ENTRY = Participant(address=PARTICIPANTS[0], node_key=bytes(32), stake_nanoton=100, held_nanoton=7, pending_nanoton=30)


@pytest.mark.parametrize(
    "change",
    [
        {"count": 2},
        {"active_count": 0},
        {"total_stake_nanoton": 99},
        {"total_pending_nanoton": 31},
        {"slashed_nanoton": 0},
        {"roots": {i: bytes(32) for i in range(65)}},
        {"participants": (unchecked(ENTRY, pending_nanoton=101),), "total_pending_nanoton": 101},
        {"participants": (unchecked(ENTRY, reputation=1001),)},
    ],
)
def test_a_registry_that_contradicts_itself(change: dict[str, Any]) -> None:
    assert layout.read_registry(storage.REGISTRY.cell(registry_of([ENTRY]))).participants == (ENTRY,)
    with pytest.raises(InvalidCellError):
        layout.read_registry(storage.REGISTRY.cell(registry_of([ENTRY], **change)))


def pool_state(**over: Any) -> PoolState:
    state = PoolState(owner=OWNER, pool_id=7, phase=0, registry=ANYONE, rewards=ANYONE, params=SCENE_PARAMS)
    return unchecked(state, **over)


@pytest.mark.parametrize(
    "over",
    [
        {"status": 3},
        {"params": unchecked(SCENE_PARAMS, parameter_delay_s=1)},
        {"pending": (unchecked(Proposal(kind=CertificateKind.PROPOSE_SET, hash=bytes(32), since_s=1), kind=0x13),)},
        {"pending": (unchecked(Proposal(kind=CertificateKind.PROPOSE_SET, hash=bytes(32), since_s=1), kind=0x12),)},
        {"pending": (unchecked(Proposal(kind=CertificateKind.PROPOSE_SET, hash=bytes(32), since_s=1), target=9),)},
    ],
    ids=["status", "delay", "no proposal", "parameters missing", "target"],
)
def test_a_pool_that_cannot_be(over: dict[str, Any]) -> None:
    with pytest.raises(InvalidCellError):
        layout.read_pool(storage.POOL.cell(pool_state(**over)))


def test_a_pool_of_another_version_is_refused() -> None:
    cell = storage.POOL.cell(pool_state())
    bits = cell.bits.copy()
    bits[8 + 15] ^= 1
    with pytest.raises(InvalidCellError, match="storage version 0, expected 1"):
        layout.read_pool(Cell(bits, cell.refs, -1))


@pytest.mark.parametrize(
    ("octets", "shown"),
    [(b"\xffpool", "?pool"), (b"a\x1b[2Jb", "a?[2Jb"), (b"two\nlines", "two?lines"), (b"plain", "plain")],
)
def test_a_pool_stays_legible_whatever_its_name(octets: bytes, shown: str) -> None:
    """The chain holds it already, and the pool must not stop for it."""
    cell = storage.POOL.cell(pool_state())
    extra = cell.refs[2]
    metadata = extra.refs[-1]
    named = Cell(metadata.bits, [Builder().store_bytes(octets).end_cell(), *metadata.refs[1:]], -1)
    changed = Cell(cell.bits, [*cell.refs[:2], Cell(extra.bits, [*extra.refs[:-1], named], -1)], -1)
    assert layout.read_pool(changed).metadata.name == shown


def test_who_settles_and_when_a_pool_is_paused() -> None:
    scene = Scene()
    current, before = scene.new_set(5), scene.new_set(4)
    state = pool_state(operator_set=current, previous_set=before, paused_until_s=1000)
    assert state.set_of(5) == current
    assert state.set_of(4) == before
    assert state.set_of(3) is None
    assert pool_state().set_of(0) is None
    assert state.is_paused(999)
    assert not state.is_paused(1000)
    assert pool_state(status=PoolStatus.PAUSED).is_paused(1)
    assert not pool_state(status=PoolStatus.CLOSED).is_paused(1)
    assert state.policy_hash == TERMS.policy_hash


def test_a_pool_stays_legible_whose_set_names_a_key_twice() -> None:
    """The contract takes such a set; who made it must still be able to see and to replace it."""
    once = Scene().new_set(5)
    state = pool_state(operator_set=replace(once, operators=(*once.operators, once.operators[0])))
    assert layout.read_pool(storage.POOL.cell(state)) == state
    with pytest.raises(InvalidValueError, match="stands twice"):
        state.operator_set.require_distinct()  # type: ignore[union-attr]


def test_a_pool_before_its_start_is_absent() -> None:
    seed = layout.pool_state_init(OWNER, 7, 3600).refs[1]
    with pytest.raises(ContractAbsentError, match="pool_init"):
        layout.read_pool(seed)


@pytest.mark.parametrize("read", [layout.read_pool, layout.read_rewards, layout.read_registry])
def test_a_storage_of_another_contract_is_refused(ready: Scene, read: Any) -> None:
    assert ready.register(PARTICIPANTS[0]).refusal is None
    pot = ready.finish_epoch()
    assert ready.settle([leaf(PARTICIPANTS[0], pot)]).refusal is None
    own = {layout.read_pool: ready.pool, layout.read_rewards: ready.rewards, layout.read_registry: ready.registry}
    for address in own.values():
        data = ready.ledger.account(address).data
        assert data is not None
        if own[read] == address:
            read(data)
            data = Cell(data.bits[:-1], data.refs, -1)
        with pytest.raises((InvalidCellError, ContractAbsentError)):
            read(data)


@pytest.mark.parametrize("name", ["pool", "rewards", "registry"])
def test_what_the_contracts_wrote_is_what_python_writes(ready: Scene, name: str) -> None:
    """Tolk's serialization and ours are one: a storage read and written again has the same hash."""
    assert ready.register(PARTICIPANTS[0]).refusal is None
    ready.rotate()
    pot = ready.finish_epoch()
    ready.finish_epoch()
    tree = ready.settle_shares({PARTICIPANTS[0]: pot})
    assert ready.claim(PARTICIPANTS[0], tree).refusal is None
    codec, address = {
        "pool": (storage.POOL, ready.pool),
        "rewards": (storage.REWARDS, ready.rewards),
        "registry": (storage.REGISTRY, ready.registry),
    }[name]
    data = ready.ledger.account(address).data
    assert data is not None
    assert codec.cell(codec.parse(data)).hash == data.hash


def test_addresses_are_read_as_they_are() -> None:
    registry = registry_of([ENTRY], pool=Address(-1, bytes(32)))
    assert layout.read_registry(storage.REGISTRY.cell(registry)).pool == Address(-1, bytes(32))
