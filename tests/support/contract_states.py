"""What the contracts hold, for tests that need only a part of it: everything else is as in a young pool."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from contracts.model import (
    NANO,
    ZERO_HASH,
    Address,
    EpochTerms,
    Landed,
    OpenEpoch,
    PinnedTerms,
    PoolParams,
    PoolState,
    RewardsState,
)

OWNER, REGISTRY, REWARDS = (Address(0, letter * 32) for letter in (b"o", b"g", b"r"))


def terms(policy_hash: bytes = ZERO_HASH) -> EpochTerms:
    return EpochTerms(fee_bps=200, policy_hash=policy_hash, max_refund_nanoton=0)


def pinned(set_id: int = 1, policy_hash: bytes = ZERO_HASH) -> PinnedTerms:
    return PinnedTerms(set_id=set_id, terms=terms(policy_hash))


def open_epoch(
    epoch: int,
    *,
    start_s: int,
    end_s: int,
    finalized_s: int,
    pot_nanoton: int = NANO,
    fee_nanoton: int = 0,
    set_id: int = 1,
    policy_hash: bytes = ZERO_HASH,
) -> OpenEpoch:
    return OpenEpoch(
        epoch=epoch,
        start_s=start_s,
        end_s=end_s,
        pot_nanoton=pot_nanoton,
        fee_nanoton=fee_nanoton,
        finalized_s=finalized_s,
        pinned=pinned(set_id, policy_hash),
    )


def nothing_landed() -> Landed:
    return Landed(
        epoch=0,
        payload_hash=ZERO_HASH,
        totals_root=ZERO_HASH,
        previous_root=ZERO_HASH,
        total_earned_nanoton=0,
        settled_s=0,
    )


def rewards_state(pool: Address, *, start_s: int, end_s: int, **changes: Any) -> RewardsState:
    """The rewards contract in its first epoch [start_s, end_s), nothing received, set 1 pinned."""
    state = RewardsState(
        pool=pool,
        registry=REGISTRY,
        current_epoch=1,
        current_start_s=start_s,
        current_end_s=end_s,
        epoch_duration_s=end_s - start_s,
        running=pinned(),
        next=pinned(),
        received_nanoton=0,
        carried_nanoton=0,
        open_pots_nanoton=0,
        pending_fees_nanoton=0,
        received_before_nanoton=0,
        distributed_nanoton=0,
        fees_collected_nanoton=0,
        open_epochs=(),
        landed=nothing_landed(),
        paid_nanoton={},
    )
    return replace(state, **changes)


def pool_state(*, policy_hash: bytes = ZERO_HASH, **changes: Any) -> PoolState:
    """A pool in the hands of its operators, if `operator_set` is given."""
    state = PoolState(
        owner=OWNER,
        pool_id=1,
        phase=1 if changes.get("operator_set") is not None else 0,
        registry=REGISTRY,
        rewards=REWARDS,
        params=PoolParams(terms=terms(policy_hash)),
    )
    return replace(state, **changes)
