"""What the three contracts keep, read strictly from their accounts' data cells, and written for tests.

Untrusted: the data cell. A proven account state is as good as its proof, but it may belong to another
contract or another version; whatever does not decode to the last bit is refused, and so are sums that are
not those of their entries. The caller compares the account's code hash with `layout.code(...)` first, if it
has to know that these are the contracts.

Source: `contracts/src/storage.tolk`, `contracts/schema.tlb`.
"""

from __future__ import annotations

from typing import Any

from pytoniq_core import Cell

from contracts.errors import ContractAbsentError, InvalidValueError
from contracts.layout import dictionary
from contracts.layout.cells import Reader
from contracts.layout.codec import (
    ADDRESS,
    BOOL,
    COINS,
    HASH,
    MAYBE_ADDRESS,
    Codec,
    Field,
    Part,
    choice,
    constant,
    convert,
    hashmap,
    maybe_ref,
    raw,
    record,
    ref,
    struct,
    uint,
)
from contracts.layout.values import OPERATOR_SET, PARAMS, PINNED_TERMS, PROFILE, STAKE_RULES, STORED_METADATA
from contracts.model import (
    EPOCH_ROOTS_MAX,
    OPEN_EPOCHS_MAX,
    PARTICIPANTS_MAX,
    PROPOSAL_KINDS,
    Address,
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

PAID_MAX = 32_768
"""Participants come and go, and what they were paid stays; an account holds 65,536 cells at most."""

_VERSION = 1
_SEED_TAG, _POOL_TAG = 0, 1


def read_pool(data: Cell) -> PoolState:
    """Read PoolOperator's storage.

    Raises:
        ContractAbsentError: the pool is deployed, but its owner has not initialised it.
        InvalidCellError: `data` is something else.
    """
    if Reader(data, "Pool").uint(8) == _SEED_TAG:
        raise ContractAbsentError("the pool is not initialised yet: its owner has to send pool_init")
    return POOL.parse(data)


def read_rewards(data: Cell) -> RewardsState:
    """Read RewardDistribution's storage. Raises `InvalidCellError`."""
    return REWARDS.parse(data)


def read_registry(data: Cell) -> RegistryState:
    """Read ParticipantRegistry's storage; its entries ascend by account. Raises `InvalidCellError`."""
    return REGISTRY.parse(data)


def _proposals(items: dict[int, dict[str, Any]]) -> tuple[Proposal, ...]:
    if not items.keys() <= {int(kind) for kind in PROPOSAL_KINDS}:
        raise InvalidValueError("a proposal of an unknown kind")
    return tuple(Proposal(kind=CertificateKind(kind), **values) for kind, values in items.items())


def _proposal_values(proposals: tuple[Proposal, ...]) -> dict[int, dict[str, Any]]:
    names = ("hash", "target", "since_s", "not_before_s", "params")
    return {int(proposal.kind): {name: getattr(proposal, name) for name in names} for proposal in proposals}


def _open_epochs(items: dict[int, dict[str, Any]]) -> tuple[OpenEpoch, ...]:
    return tuple(OpenEpoch(epoch=epoch, **values) for epoch, values in items.items())


def _open_epoch_values(epochs: tuple[OpenEpoch, ...]) -> dict[int, dict[str, Any]]:
    names = ("start_s", "end_s", "finalized_s", "pot_nanoton", "fee_nanoton", "pinned")
    return {epoch.epoch: {name: getattr(epoch, name) for name in names} for epoch in epochs}


def _rewards(values: dict[str, Any]) -> RewardsState:
    state = RewardsState(**values)
    if state.unpaid_nanoton < 0:
        raise InvalidValueError("more was paid than earned")
    if state.open_pots_nanoton != sum(epoch.pot_nanoton for epoch in state.open_epochs):
        raise InvalidValueError("open pots are not those of the open epochs")
    return state


def _registry(values: dict[str, Any]) -> RegistryState:
    config = values.pop("config") or {"rewards": None, "paused_until_s": 0, "rules": None}
    del values["node_keys"]
    entries: dict[int, dict[str, Any]] = values.pop("participants")
    participants = tuple(
        Participant(address=Address(0, account.to_bytes(32, "big")), **entry) for account, entry in entries.items()
    )
    state = RegistryState(participants=participants, **values, **config)
    sums = (
        len(participants),
        sum(p.status == ParticipantStatus.ACTIVE for p in participants),
        sum(p.stake_nanoton for p in participants),
        sum(p.pending_nanoton for p in participants),
        sum(p.held_nanoton for p in participants),
    )
    kept = (state.count, state.active_count, state.total_stake_nanoton, state.total_pending_nanoton)
    if sums != (*kept, state.slashed_nanoton):
        raise InvalidValueError("its counters are not the sums of its participants")
    return state


def _registry_values(state: RegistryState) -> dict[str, Any]:
    names = (
        "pool",
        "count",
        "active_count",
        "total_stake_nanoton",
        "total_pending_nanoton",
        "slashed_nanoton",
        "counters_seqno",
        "roots",
    )
    values = {name: getattr(state, name) for name in names}
    config = {"rewards": state.rewards, "paused_until_s": state.paused_until_s, "rules": state.rules}
    owners = {int.from_bytes(p.node_key, "big"): p.address.account for p in state.participants}
    return values | {
        "config": None if state.rewards is None else config,
        "participants": {int.from_bytes(p.address.account, "big"): _entry(p) for p in state.participants},
        "node_keys": dictionary.build(owners, 256, lambda builder, account: builder.store_bytes(account)),
    }


def _entry(participant: Participant) -> dict[str, Any]:
    return {name: getattr(participant, name) for name in Participant.__dataclass_fields__ if name != "address"}


_EPOCH_COINS: Codec[dict[bytes, int]] = convert(
    hashmap(256, COINS, PAID_MAX, "paid"),
    lambda items: {account.to_bytes(32, "big"): amount for account, amount in items.items()},
    lambda paid: {int.from_bytes(account, "big"): amount for account, amount in paid.items()},
)
_REFERENCES = Part(
    "references",
    "References",
    (Field("registry", ADDRESS), Field("rewards", ADDRESS), Field("cocoon_root", MAYBE_ADDRESS)),
)
PENDING = record(
    "Pending",
    Field("hash", HASH),
    Field("target", choice(UpgradeTarget, 8)),
    Field("since", uint(32), "since_s"),
    Field("not_before", uint(32), "not_before_s"),
    Field("params", maybe_ref(PARAMS)),
)
_EXTRA = Part(
    "extra",
    "Extra",
    (
        Field("previous_set", maybe_ref(OPERATOR_SET)),
        Field(
            "pending",
            convert(hashmap(8, ref(PENDING), len(PROPOSAL_KINDS), "proposal"), _proposals, _proposal_values),
        ),
        Field("metadata", ref(STORED_METADATA)),
        Field("created", uint(32), "created_s"),
        Field("updated", uint(32), "updated_s"),
        Field("exit_by", uint(32), "exit_by_s"),
        Field("tasks", uint(64)),
        Field("tokens", uint(64)),
    ),
)
_LAYOUT = Field("version", constant(_VERSION, 16, "storage version"), "")
SEED = record(
    "PoolSeed",
    Field("owner", ADDRESS),
    Field("pool_id", uint(64)),
    Field("epoch_duration", uint(32), "epoch_duration_s"),
    Field("registry_code", raw()),
    Field("rewards_code", raw()),
    tag=(_SEED_TAG, 8),
)
POOL = struct(
    "Pool",
    PoolState,
    _LAYOUT,
    Field("owner", ADDRESS),
    Field("pool_id", uint(64)),
    Field("phase", uint(2)),
    Field("status", choice(PoolStatus, 2)),
    Field("paused_until", uint(32), "paused_until_s"),
    Field("registration_open", BOOL),
    Field("gov_seqno", uint(32)),
    Field("active_count", uint(32)),
    Field("pooled_stake", COINS, "pooled_stake_nanoton"),
    Field("counters_seqno", uint(32)),
    _REFERENCES,
    Field("params", ref(PARAMS)),
    Field("set", maybe_ref(OPERATOR_SET), "operator_set"),
    _EXTRA,
    tag=(_POOL_TAG, 8),
)

_SETUP = Part(
    "setup",
    "Setup",
    (
        Field("pool", ADDRESS),
        Field("registry", ADDRESS),
        Field("duration", uint(32), "epoch_duration_s"),
        Field("running", ref(PINNED_TERMS)),
        Field("next", ref(PINNED_TERMS)),
    ),
)
LANDED = struct(
    "Landed",
    Landed,
    Field("epoch", uint(32)),
    Field("settled_at", uint(32), "settled_s"),
    Field("payload_hash", HASH),
    Field("totals_root", HASH),
    Field("previous_root", HASH),
    Field("total_earned", COINS, "total_earned_nanoton"),
)
OPEN_EPOCH = record(
    "OpenEpoch",
    Field("start", uint(32), "start_s"),
    Field("end", uint(32), "end_s"),
    Field("finalized_at", uint(32), "finalized_s"),
    Field("pot", COINS, "pot_nanoton"),
    Field("fee", COINS, "fee_nanoton"),
    Field("pinned", ref(PINNED_TERMS)),
)
REWARDS = convert(
    record(
        "Rewards",
        _LAYOUT,
        Field("epoch", uint(32), "current_epoch"),
        Field("start", uint(32), "current_start_s"),
        Field("end", uint(32), "current_end_s"),
        Field("received", COINS, "received_nanoton"),
        Field("carried", COINS, "carried_nanoton"),
        Field("open_pots", COINS, "open_pots_nanoton"),
        Field("pending_fees", COINS, "pending_fees_nanoton"),
        Field("received_before", COINS, "received_before_nanoton"),
        Field("distributed", COINS, "distributed_nanoton"),
        Field("fees_collected", COINS, "fees_collected_nanoton"),
        _SETUP,
        Field("landed", ref(LANDED)),
        Field(
            "open",
            convert(hashmap(32, OPEN_EPOCH, OPEN_EPOCHS_MAX, "open epoch"), _open_epochs, _open_epoch_values),
            "open_epochs",
        ),
        Field("paid", _EPOCH_COINS, "paid_nanoton"),
    ),
    _rewards,
    lambda state: {name: getattr(state, name) for name in RewardsState.__dataclass_fields__},
)

LIFETIME = struct(
    "Lifetime",
    Lifetime,
    Field("score", uint(128)),
    Field("uptime", uint(64), "uptime_s"),
    Field("tasks", uint(64)),
    Field("tokens", uint(64)),
    Field("epochs", uint(32)),
    Field("last_epoch", uint(32)),
)
PARTICIPANT = record(
    "Participant",
    Field("stake", COINS, "stake_nanoton"),
    Field("status", choice(ParticipantStatus, 2)),
    Field("reputation", uint(10)),
    Field("joined", uint(32), "joined_s"),
    Field("heartbeat", uint(32), "heartbeat_s"),
    Field("seqno", uint(32)),
    Field("pending", COINS, "pending_nanoton"),
    Field("withdraw_at", uint(32), "withdraw_at_s"),
    Field("held", COINS, "held_nanoton"),
    Field("held_until", uint(32), "held_until_s"),
    Field("rotated", uint(32), "rotated_s"),
    PROFILE,
    Field("lifetime", maybe_ref(LIFETIME)),
)
REGISTRY_CONFIG = record(
    "RegistryConfig",
    Field("rewards", ADDRESS),
    Field("paused_until", uint(32), "paused_until_s"),
    Field("rules", ref(STAKE_RULES)),
)
REGISTRY_RECORD = record(
    "Registry",
    _LAYOUT,
    Field("pool", ADDRESS),
    Field("count", uint(32)),
    Field("active_count", uint(32)),
    Field("total_stake", COINS, "total_stake_nanoton"),
    Field("total_pending", COINS, "total_pending_nanoton"),
    Field("slashed", COINS, "slashed_nanoton"),
    Field("counters_seqno", uint(32)),
    Field("config", maybe_ref(REGISTRY_CONFIG)),
    Field("roots", hashmap(32, HASH, EPOCH_ROOTS_MAX, "epoch root")),
    Field("participants", hashmap(256, PARTICIPANT, PARTICIPANTS_MAX, "participant")),
    Field("node_keys", Codec("(HashmapE 256 bits256)", lambda b, cell: b.store_maybe_ref(cell), Reader.maybe_ref)),
)
REGISTRY = convert(REGISTRY_RECORD, _registry, _registry_values)
