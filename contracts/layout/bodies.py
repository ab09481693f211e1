"""The fields of every message body and every external log message, and reading one of unknown kind.

Untrusted: what `read_body` and `read_event` read. Amounts and times bear no unit in these names: they are
the schema's. `contracts.layout.messages` writes the messages that come from outside.

Source: `contracts/src/messages.tolk`, `contracts/src/events.tolk`, `contracts/schema.tlb`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from pytoniq_core import Cell

from contracts.errors import InvalidCellError
from contracts.layout.cells import Reader
from contracts.layout.codec import (
    ACCOUNT,
    ADDRESS,
    BOOL,
    COINS,
    HASH,
    MAYBE_ADDRESS,
    Codec,
    Field,
    Part,
    Values,
    octets,
    raw,
    record,
    ref,
    uint,
)
from contracts.layout.values import METADATA, OPERATOR_SET, PARAMS, PINNED_TERMS, PROFILE, STAKE_RULES
from contracts.opcodes import Event, Op

N = TypeVar("N", Op, Event)


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A message's or an event's number and its fields by name (`query_id` among a message's)."""

    op: Op | Event
    values: dict[str, Any]


def body_cell(op: Op, *, query_id: int = 0, **values: Any) -> Cell:
    """Write a message body.

    Raises:
        InvalidValueError: a value does not fit its field.
    """
    return MESSAGES[op].cell({"query_id": query_id, **values})


def read_body(cell: Cell) -> Body:
    """Read a message body of any op.

    Raises:
        InvalidCellError: an unknown op, or not exactly its fields.
    """
    return _read(cell, MESSAGES, Op)


def read_event(cell: Cell) -> Body:
    """Read an external log message of any kind. Raises as `read_body` does."""
    return _read(cell, EVENTS, Event)


def _read(cell: Cell, table: dict[N, Codec[Values]], numbers: type[N]) -> Body:
    number = Reader(cell, "body").uint(32)
    try:
        op = numbers(number)
    except ValueError:
        raise InvalidCellError(f"body: unknown number {number:#010x}") from None
    return Body(op=op, values=table[op].parse(cell))


def _message(op: Op, *fields: Field | Part) -> tuple[Op, Codec[Values]]:
    return op, record(op.name.lower(), Field("query_id", uint(64)), *fields, tag=(op, 32))


def _event(event: Event, *fields: Field) -> tuple[Event, Codec[Values]]:
    return event, record(event.name.lower(), *fields, tag=(event, 32))


_OWNER, _PARTICIPANT = Field("owner", ACCOUNT), Field("participant", ACCOUNT)
_AMOUNT, _STAKE = Field("amount", COINS), Field("stake", COINS)
_EXCESS_TO, _SUBMITTER = Field("excess_to", ADDRESS), Field("submitter", ADDRESS)
_EPOCH, _SET_ID, _KIND = Field("epoch", uint(32)), Field("set_id", uint(32)), Field("kind", uint(8))
_TOTALS_ROOT = Field("totals_root", HASH)
_PROOF, _CODE, _PAYLOAD = Field("proof", raw("TotalsProof")), Field("code", raw()), Field("payload", raw("CertPayload"))

MESSAGES: dict[Op, Codec[Values]] = dict(
    (
        _message(
            Op.POOL_INIT,
            Field("registration_open", BOOL),
            Field("cocoon_root", MAYBE_ADDRESS),
            Field("params", ref(PARAMS)),
            Field("metadata", ref(METADATA)),
        ),
        _message(Op.POOL_ENABLE_QUORUM, Field("set", ref(OPERATOR_SET))),
        _message(Op.POOL_OWNER_COMMAND, _PAYLOAD),
        _message(Op.POOL_REGISTER_PARTICIPANT, _STAKE, Field("signature", octets(64)), PROFILE),
        _message(
            Op.POOL_SUBMIT_CERTIFICATE,
            Field("signers_count", uint(8)),
            Field("certificate", raw("Certificate")),
            Field("signatures", raw("SigLink")),
        ),
        _message(Op.POOL_APPLY_PARAMS),
        _message(Op.POOL_APPLY_UPGRADE, _CODE),
        _message(Op.POOL_GUARDIAN_PAUSE),
        _message(
            Op.POOL_SYNC_COUNTERS,
            Field("seqno", uint(32)),
            Field("active_count", uint(32)),
            Field("pooled_stake", COINS),
            _EXCESS_TO,
        ),
        _message(
            Op.POOL_EPOCH_SETTLED,
            _SUBMITTER,
            _EPOCH,
            _TOTALS_ROOT,
            Field("tasks", uint(64)),
            Field("tokens", uint(64)),
        ),
        _message(
            Op.REGISTRY_CONFIGURE,
            Field("rewards", ADDRESS),
            Field("paused_until", uint(32)),
            Field("rules", ref(STAKE_RULES)),
            _EXCESS_TO,
        ),
        _message(Op.REGISTRY_ADD_PARTICIPANT, _OWNER, _STAKE, Field("max_participants", uint(32)), PROFILE),
        _message(Op.REGISTRY_SET_EPOCH_ROOT, _SUBMITTER, _EPOCH, _TOTALS_ROOT),
        _message(Op.DISTRIBUTION_UPDATE_TERMS, Field("next", ref(PINNED_TERMS)), _EXCESS_TO),
        _message(Op.POOL_RELAY_CERTIFICATE, _SUBMITTER, Field("attached", COINS), _SET_ID, _KIND, _PAYLOAD),
        _message(Op.POOL_UPGRADE_CHILD, _CODE, _EXCESS_TO),
        _message(Op.REGISTRY_INCREASE_STAKE, _AMOUNT),
        _message(Op.REGISTRY_REQUEST_WITHDRAWAL, _AMOUNT),
        _message(Op.REGISTRY_CANCEL_WITHDRAWAL),
        _message(Op.REGISTRY_HEARTBEAT),
        _message(Op.REGISTRY_UPDATE_WORKER_ADDRESS, Field("worker", MAYBE_ADDRESS)),
        _message(Op.REGISTRY_ROTATE_NODE_KEY, Field("node_key", HASH), Field("signature", octets(64))),
        _message(Op.REGISTRY_COMPLETE_WITHDRAWAL, _OWNER),
        _message(Op.REGISTRY_SWEEP_SLASHED, _OWNER),
        _message(Op.REGISTRY_UPDATE_CONTRIBUTION, _OWNER, _EPOCH, _PROOF),
        _message(Op.REGISTRY_STAKE_RETURNED),
        _message(Op.DISTRIBUTION_RECEIVE_SLASHED, _EXCESS_TO, _AMOUNT),
        _message(Op.DISTRIBUTION_RECEIVE_PAYMENT),
        _message(Op.DISTRIBUTION_FINALIZE_EPOCH),
        _message(Op.DISTRIBUTION_CLAIM_REWARDS, _PARTICIPANT, _PROOF),
        _message(
            Op.DISTRIBUTION_EXECUTE_BATCH,
            Field("count", uint(8)),
            Field("participants", raw("AccountLink")),
            _PROOF,
        ),
        _message(Op.PAYOUT),
        _message(Op.COCOON_EXCESSES),
        _message(Op.EXCESSES),
        _message(Op.TOP_UP),
    )
)
EVENTS: dict[Event, Codec[Values]] = dict(
    (
        _event(Event.EVENT_POOL_INITIALISED, Field("registry", ADDRESS), Field("rewards", ADDRESS)),
        _event(Event.EVENT_QUORUM_ENABLED, _SET_ID, Field("set_hash", HASH)),
        _event(
            Event.EVENT_PROPOSED,
            _KIND,
            Field("target", uint(8)),
            Field("hash", HASH),
            Field("not_before", uint(32)),
        ),
        _event(Event.EVENT_PROPOSAL_CANCELLED, _KIND),
        _event(Event.EVENT_SET_ACCEPTED, _SET_ID, Field("set_hash", HASH)),
        _event(Event.EVENT_PARAMS_APPLIED, Field("hash", HASH)),
        _event(Event.EVENT_UPGRADE_APPLIED, Field("target", uint(8)), Field("code_hash", HASH)),
        _event(Event.EVENT_POOL_PAUSED, Field("until", uint(32))),
        _event(Event.EVENT_POOL_RESUMED),
        _event(Event.EVENT_POOL_CLOSED),
        _event(Event.EVENT_REGISTRATION_SET, Field("open", BOOL)),
        _event(Event.EVENT_METADATA_UPDATED, Field("hash", HASH)),
        _event(Event.EVENT_EPOCH_FINALIZED, _EPOCH, Field("pot", COINS), Field("fee", COINS)),
        _event(
            Event.EVENT_EPOCH_SETTLED,
            _EPOCH,
            Field("payload_hash", HASH),
            Field("total_earned", COINS),
            Field("refund", COINS),
        ),
        _event(Event.EVENT_REWARDS_CLAIMED, _PARTICIPANT, _AMOUNT, Field("paid", COINS)),
        _event(Event.EVENT_BATCH_DISTRIBUTED, Field("count", uint(8)), _AMOUNT),
        _event(Event.EVENT_FEES_WITHDRAWN, Field("recipient", ADDRESS), _AMOUNT),
        _event(Event.EVENT_OWNER_MESSAGE_SENT, Field("dest", ADDRESS), Field("value", COINS), Field("body_hash", HASH)),
        _event(Event.EVENT_SLASHED_RECEIVED, _AMOUNT),
        _event(Event.EVENT_TERMS_UPDATED, _SET_ID, Field("terms_hash", HASH)),
        _event(Event.EVENT_PARTICIPANT_REGISTERED, _OWNER, Field("node_key", HASH), _STAKE),
        _event(Event.EVENT_STAKE_INCREASED, _OWNER, _AMOUNT, _STAKE),
        _event(Event.EVENT_WITHDRAWAL_REQUESTED, _OWNER, _AMOUNT, Field("withdraw_at", uint(32))),
        _event(Event.EVENT_WITHDRAWAL_CANCELLED, _OWNER, _AMOUNT),
        _event(Event.EVENT_WITHDRAWAL_COMPLETED, _OWNER, _AMOUNT, _STAKE),
        _event(Event.EVENT_PARTICIPANT_REMOVED, _OWNER, Field("node_key", HASH)),
        _event(
            Event.EVENT_PARTICIPANT_SLASHED,
            _OWNER,
            _AMOUNT,
            _STAKE,
            Field("reason", uint(8)),
            Field("evidence_hash", HASH),
        ),
        _event(Event.EVENT_SLASH_CANCELLED, _OWNER, _AMOUNT),
        _event(Event.EVENT_SLASHED_SWEPT, _OWNER, _AMOUNT),
        _event(Event.EVENT_REPUTATION_UPDATED, _OWNER, Field("reputation", uint(16))),
        _event(Event.EVENT_STATUS_CHANGED, _OWNER, Field("status", uint(8))),
        _event(Event.EVENT_WORKER_UPDATED, _OWNER, Field("worker", MAYBE_ADDRESS)),
        _event(Event.EVENT_NODE_KEY_ROTATED, _OWNER, Field("node_key", HASH), Field("previous", HASH)),
        _event(Event.EVENT_CONTRIBUTION_COUNTED, _OWNER, _EPOCH),
    )
)
