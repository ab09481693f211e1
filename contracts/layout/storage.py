"""What the three contracts keep, read strictly from their accounts' data cells.

Untrusted: the data cell. A proven account state is as good as its proof, but it may belong to another
contract or another version; whatever does not decode to the last bit is refused. The caller compares
the account's code hash with `layout.code(...)` first, if it has to know that these are the contracts.

Source: `contracts/src/storage.tolk`, `contracts/schema.tlb`.
"""

from __future__ import annotations

from pytoniq_core import Cell

from contracts.errors import ContractAbsentError, InvalidCellError
from contracts.layout import dictionary
from contracts.layout.cells import Reader
from contracts.layout.messages import read_operator_set
from contracts.model import (
    REPUTATION_MAX,
    Address,
    Landed,
    OpenEpoch,
    Participant,
    ParticipantStatus,
    PoolState,
    RewardsState,
)

PARTICIPANTS_MAX = 12_000
OPEN_EPOCHS_MAX = 64

_POOL_SEED, _POOL = 0, 1


def read_pool(data: Cell) -> PoolState:
    """Read PoolOperator's storage.

    Raises:
        ContractAbsentError: the pool is deployed, but its owner has not initialised it.
        InvalidCellError: `data` is something else.
    """
    reader = Reader(data, "pool")
    tag = reader.uint(8)
    if tag == _POOL_SEED:
        raise ContractAbsentError("the pool is not initialised yet: its owner has to send pool_init")
    if tag != _POOL:
        raise InvalidCellError(f"pool: unknown version {tag}")
    children, params = Reader(reader.ref(), "pool's children"), Reader(reader.ref(), "pool's parameters")
    owner, pool_id, phase = reader.address(), reader.uint(64), reader.uint(2)
    operators = reader.maybe_ref()
    state = PoolState(
        owner=owner,
        pool_id=pool_id,
        phase=phase,
        registry=children.address(),
        rewards=children.address(),
        fee_bps=params.uint(16),
        min_stake_nanoton=params.coins(),
        max_participants=params.uint(32),
        registration_open=params.flag(),
        policy_hash=params.octets(32),
        max_refund_nanoton=params.coins(),
        operator_set=None if operators is None else read_operator_set(operators),
    )
    for part in (reader, children, params):
        part.end()
    return state


def read_rewards(data: Cell) -> RewardsState:
    """Read RewardDistribution's storage. Raises `InvalidCellError`."""
    reader = Reader(data, "rewards")
    terms = Reader(reader.ref(), "rewards' terms")
    epoch, start_s, end_s = reader.uint(32), reader.uint(32), reader.uint(32)
    received, carried = reader.coins(), reader.coins()
    open_pots, pending_fees, distributed = reader.coins(), reader.coins(), reader.coins()
    landed = _read_landed(reader.ref())
    open_root, paid_root = reader.maybe_ref(), reader.maybe_ref()
    reader.end()
    pool, _registry, duration_s = terms.address(), terms.address(), terms.uint(32)
    fee_bps, _max_refund = terms.uint(16), terms.coins()
    terms.end()
    unpaid = landed.total_earned_nanoton - distributed
    if unpaid < 0:
        raise InvalidCellError("rewards: more was paid than earned")
    return RewardsState(
        pool=pool,
        current_epoch=epoch,
        current_start_s=start_s,
        current_end_s=end_s,
        epoch_duration_s=duration_s,
        received_nanoton=received,
        carried_nanoton=carried,
        distributed_nanoton=distributed,
        liabilities_nanoton=received + carried + open_pots + pending_fees + unpaid,
        pending_fees_nanoton=pending_fees,
        fee_bps=fee_bps,
        open_epochs=_read_open_epochs(open_root),
        landed=landed,
        paid_nanoton=_read_paid(paid_root),
    )


def read_registry(data: Cell) -> tuple[Participant, ...]:
    """Read ParticipantRegistry's entries, ascending by account. Raises `InvalidCellError`."""
    reader = Reader(data, "registry")
    reader.address()
    count, total_stake = reader.uint(32), reader.coins()
    root, _node_keys = reader.maybe_ref(), reader.maybe_ref()
    reader.end()
    participants = tuple(
        _read_participant(account, value)
        for account, value in dictionary.entries(root, 256, entries_max=PARTICIPANTS_MAX, name="participant")
    )
    if (count, total_stake) != (len(participants), sum(p.stake_nanoton for p in participants)):
        raise InvalidCellError("registry: count or total stake is not that of its participants")
    return participants


def _read_landed(cell: Cell) -> Landed:
    reader = Reader(cell, "landed settlement")
    epoch, settled_s = reader.uint(32), reader.uint(32)
    landed = Landed(
        epoch=epoch,
        settled_s=settled_s,
        payload_hash=reader.octets(32),
        totals_root=reader.octets(32),
        previous_root=reader.octets(32),
        total_earned_nanoton=reader.coins(),
    )
    reader.end()
    return landed


def _read_open_epochs(root: Cell | None) -> tuple[OpenEpoch, ...]:
    epochs = []
    for epoch, value in dictionary.entries(root, 32, entries_max=OPEN_EPOCHS_MAX, name="open epoch"):
        start_s, end_s, finalized_s = value.uint(32), value.uint(32), value.uint(32)
        epochs.append(
            OpenEpoch(
                epoch=epoch,
                start_s=start_s,
                end_s=end_s,
                pot_nanoton=value.coins(),
                fee_nanoton=value.coins(),
                finalized_s=finalized_s,
            )
        )
        value.end()
    return tuple(epochs)


def _read_paid(root: Cell | None) -> dict[bytes, int]:
    paid = {}
    for account, value in dictionary.entries(root, 256, entries_max=PARTICIPANTS_MAX, name="paid"):
        paid[account.to_bytes(32, "big")] = value.coins()
        value.end()
    return paid


def _read_participant(account: int, value: Reader) -> Participant:
    profile = Reader(value.ref(), "participant's profile")
    stake, status, reputation = value.coins(), value.uint(2), value.uint(10)
    joined_s, _heartbeat_s = value.uint(32), value.uint(32)
    value.end()
    node_key, worker = profile.octets(32), profile.maybe_address()
    _gpu_spec_hash, _gpu_count = profile.octets(32), profile.uint(8)
    profile.end()
    if reputation > REPUTATION_MAX:
        raise InvalidCellError(f"participant: reputation {reputation}, at most {REPUTATION_MAX}")
    return Participant(
        address=Address(0, account.to_bytes(32, "big")),
        node_key=node_key,
        stake_nanoton=stake,
        status=ParticipantStatus(status),
        reputation=reputation,
        joined_s=joined_s,
        worker=worker,
    )
