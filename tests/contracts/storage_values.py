"""Strategies for what the three contracts keep, and a registry with the sums of its entries."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from contracts.model import (
    PROPOSAL_KINDS,
    CertificateKind,
    Landed,
    Lifetime,
    OpenEpoch,
    Participant,
    ParticipantStatus,
    PoolState,
    PoolStatus,
    Proposal,
    RegistryState,
    RewardsState,
    UpgradeTarget,
)
from tests.contracts.cell_values import (
    ACCOUNTS,
    ADDRESSES,
    HASHES,
    METADATA,
    OPERATOR_SETS,
    PARAMS,
    PINNED,
    RULES,
    TIMES,
)
from tests.contracts.pool_scene import ANYONE, OWNER
from tests.contracts.pool_scene import PARAMS as SCENE_PARAMS

SMALL = st.integers(0, 2**80)
LONG = st.integers(0, 2**64 - 1)


@st.composite
def proposals(draw: st.DrawFn) -> Proposal:
    kind = draw(st.sampled_from(sorted(PROPOSAL_KINDS)))
    return Proposal(
        kind=kind,
        hash=draw(HASHES),
        since_s=draw(TIMES),
        not_before_s=draw(TIMES),
        target=draw(st.sampled_from(UpgradeTarget)),
        params=draw(PARAMS) if kind == CertificateKind.PROPOSE_PARAMS else None,
    )


POOLS = st.builds(
    PoolState,
    owner=ADDRESSES,
    pool_id=LONG,
    phase=st.integers(0, 1),
    registry=ADDRESSES,
    rewards=ADDRESSES,
    params=PARAMS,
    operator_set=st.none() | OPERATOR_SETS,
    previous_set=st.none() | OPERATOR_SETS,
    status=st.sampled_from(PoolStatus),
    paused_until_s=TIMES,
    registration_open=st.booleans(),
    gov_seqno=TIMES,
    active_count=TIMES,
    pooled_stake_nanoton=SMALL,
    counters_seqno=TIMES,
    cocoon_root=st.none() | ADDRESSES,
    pending=st.lists(proposals(), max_size=3, unique_by=lambda p: p.kind).map(
        lambda found: tuple(sorted(found, key=lambda p: p.kind))
    ),
    metadata=METADATA,
    created_s=TIMES,
    updated_s=TIMES,
    exit_by_s=TIMES,
    tasks=LONG,
    tokens=LONG,
)


@st.composite
def rewards_states(draw: st.DrawFn) -> RewardsState:
    landed = draw(st.integers(0, 1000))
    epochs = tuple(
        OpenEpoch(
            epoch=landed + 1 + i,
            start_s=draw(TIMES),
            end_s=draw(TIMES),
            finalized_s=draw(TIMES),
            pot_nanoton=draw(SMALL),
            fee_nanoton=draw(SMALL),
            pinned=draw(PINNED),
        )
        for i in range(draw(st.integers(0, 4)))
    )
    total = draw(SMALL)
    return RewardsState(
        pool=draw(ADDRESSES),
        registry=draw(ADDRESSES),
        current_epoch=landed + 1 + len(epochs),
        current_start_s=draw(TIMES),
        current_end_s=draw(TIMES),
        epoch_duration_s=draw(TIMES),
        running=draw(PINNED),
        next=draw(PINNED),
        received_nanoton=draw(SMALL),
        carried_nanoton=draw(SMALL),
        open_pots_nanoton=sum(epoch.pot_nanoton for epoch in epochs),
        pending_fees_nanoton=draw(SMALL),
        received_before_nanoton=draw(SMALL),
        distributed_nanoton=draw(st.integers(0, total)),
        fees_collected_nanoton=draw(SMALL),
        open_epochs=epochs,
        landed=Landed(
            epoch=landed,
            payload_hash=draw(HASHES),
            totals_root=draw(HASHES),
            previous_root=draw(HASHES),
            total_earned_nanoton=total,
            settled_s=draw(TIMES),
        ),
        paid_nanoton=draw(st.dictionaries(HASHES, SMALL, max_size=5)),
    )


@st.composite
def participants(draw: st.DrawFn) -> Participant:
    stake = draw(SMALL)
    return Participant(
        address=draw(ACCOUNTS),
        node_key=draw(HASHES),
        stake_nanoton=stake,
        status=draw(st.sampled_from(ParticipantStatus)),
        reputation=draw(st.integers(0, 1000)),
        joined_s=draw(TIMES),
        worker=draw(st.none() | ADDRESSES),
        heartbeat_s=draw(TIMES),
        seqno=draw(TIMES),
        pending_nanoton=draw(st.integers(0, stake)),
        withdraw_at_s=draw(TIMES),
        held_nanoton=draw(SMALL),
        held_until_s=draw(TIMES),
        rotated_s=draw(TIMES),
        gpu_spec_hash=draw(HASHES),
        gpu_count=draw(st.integers(0, 255)),
        lifetime=draw(
            st.none()
            | st.builds(Lifetime, score=SMALL, uptime_s=LONG, tasks=LONG, tokens=LONG, epochs=TIMES, last_epoch=TIMES)
        ),
    )


@st.composite
def registries(draw: st.DrawFn) -> RegistryState:
    found = draw(st.lists(participants(), max_size=4, unique_by=(lambda p: p.address, lambda p: p.node_key)))
    told = draw(st.booleans())
    return registry_of(
        sorted(found, key=lambda p: p.address),
        pool=draw(ADDRESSES),
        rewards=draw(ADDRESSES) if told else None,
        rules=draw(RULES) if told else None,
        paused_until_s=draw(TIMES) if told else 0,
        counters_seqno=draw(TIMES),
        roots=draw(st.dictionaries(TIMES, HASHES, max_size=5)),
    )


def registry_of(entries: list[Participant], **fields: Any) -> RegistryState:
    made = RegistryState(
        participants=tuple(entries),
        count=len(entries),
        active_count=sum(p.status == ParticipantStatus.ACTIVE for p in entries),
        total_stake_nanoton=sum(p.stake_nanoton for p in entries),
        total_pending_nanoton=sum(p.pending_nanoton for p in entries),
        slashed_nanoton=sum(p.held_nanoton for p in entries),
        pool=OWNER,
        rewards=ANYONE,
        rules=SCENE_PARAMS.rules,
        paused_until_s=0,
        counters_seqno=0,
        roots={},
    )
    return replace(made, **fields)
