"""Cells of what a pool can be commanded: the payload of a certificate, or of the owner's command.

Untrusted: the cell that `read_command` reads; an operator signs what it read, so it is strict: one value has
one cell. The certificate around a payload stands in `contracts.certificate`.

Source: `contracts/src/certificate.tolk`, `contracts/schema.tlb`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytoniq_core import Cell

from contracts.commands import (
    AcceptSet,
    CancelProposal,
    CancelSlash,
    Close,
    Command,
    FeesTo,
    OwnerMessage,
    Pause,
    ProposeParams,
    ProposeSet,
    ProposeUpgrade,
    Remove,
    Resume,
    SetMetadata,
    SetRegistration,
    SetReputation,
    Slash,
    SlashReason,
    Suspend,
    Target,
)
from contracts.errors import InvalidCellError, InvalidValueError
from contracts.layout.cells import Reader
from contracts.layout.codec import (
    ACCOUNT,
    ADDRESS,
    BOOL,
    COINS,
    HASH,
    Codec,
    Field,
    Part,
    choice,
    raw,
    ref,
    struct,
    uint,
)
from contracts.layout.values import METADATA, OPERATOR_SET, PARAMS
from contracts.model import CertificateKind, SettlePayload, UpgradeTarget


def command_cell(command: Command) -> Cell:
    """Write a command; its first byte is `command.kind`, and its hash identifies it.

    Raises:
        InvalidValueError: a value does not fit its field.
    """
    return PAYLOADS[command.kind].cell(command)


def read_command(cell: Cell) -> Command:
    """Read a command.

    Raises:
        InvalidCellError: of no known kind, anything else than exactly such a payload, or of a set in which a node
            key stands twice.
    """
    kind = Reader(cell, "command").uint(8)
    try:
        codec = PAYLOADS[CertificateKind(kind)]
    except ValueError:
        raise InvalidCellError(f"command: unknown kind {kind:#04x}") from None
    command: Command = codec.parse(cell)
    if isinstance(command, AcceptSet):
        try:
            command.operator_set.require_distinct()
        except InvalidValueError as error:
            raise InvalidCellError(f"command: {error}") from error
    return command


def payload_cell(payload: SettlePayload) -> Cell:
    """Write the payload of a settlement; its hash is what the next epoch names as `prev`."""
    return command_cell(payload)


def settle_payload(cell: Cell) -> SettlePayload:
    """Read the payload of a settlement.

    Raises:
        InvalidCellError: `cell` is anything else than exactly such a payload.
    """
    payload: SettlePayload = PAYLOADS[CertificateKind.SETTLE].parse(cell)
    return payload


def _payload(make: Callable[..., Any], tlb: str, kind: CertificateKind, *fields: Field | Part) -> Codec[Any]:
    return struct(f"{tlb}Payload", make, *fields, tag=(kind, 8))


_KIND = CertificateKind
TARGET = struct(
    "Target",
    Target,
    Field("participant", ACCOUNT),
    Field("joined", uint(32), "joined_s"),
    Field("seqno", uint(32)),
)
_ENTRY = Field("target", TARGET)
_SEQNO = Field("gov_seqno", uint(32))

PAYLOADS: dict[CertificateKind, Codec[Any]] = {
    _KIND.SETTLE: _payload(
        SettlePayload,
        "Settle",
        _KIND.SETTLE,
        Field("epoch", uint(32)),
        Field("prev", HASH),
        Field("totals_root", HASH),
        Field("count", uint(32)),
        Field("total_score", uint(128)),
        Field("total_earned", COINS, "total_earned_nanoton"),
        Part(
            "tail",
            "SettleTail",
            (
                Field("tasks", uint(64)),
                Field("tokens", uint(64)),
                Field("policy_hash", HASH),
                Field("cut_root", HASH),
            ),
        ),
    ),
    _KIND.SLASH: _payload(
        Slash,
        "Slash",
        _KIND.SLASH,
        _ENTRY,
        Field("amount", COINS, "amount_nanoton"),
        Field("reason", choice(SlashReason, 8)),
        Field("evidence_hash", HASH),
    ),
    _KIND.CANCEL_SLASH: _payload(CancelSlash, "CancelSlash", _KIND.CANCEL_SLASH, _ENTRY),
    _KIND.REPUTATION: _payload(SetReputation, "Reputation", _KIND.REPUTATION, _ENTRY, Field("reputation", uint(16))),
    _KIND.REMOVE: _payload(Remove, "Remove", _KIND.REMOVE, _ENTRY),
    _KIND.SUSPEND: _payload(Suspend, "Suspend", _KIND.SUSPEND, _ENTRY, Field("suspended", BOOL)),
    _KIND.PROPOSE_SET: _payload(ProposeSet, "ProposeSet", _KIND.PROPOSE_SET, _SEQNO, Field("set_hash", HASH)),
    _KIND.ACCEPT_SET: _payload(
        AcceptSet, "AcceptSet", _KIND.ACCEPT_SET, Field("set", ref(OPERATOR_SET), "operator_set")
    ),
    _KIND.PROPOSE_PARAMS: _payload(
        ProposeParams, "ProposeParams", _KIND.PROPOSE_PARAMS, _SEQNO, Field("params", ref(PARAMS))
    ),
    _KIND.PAUSE: _payload(Pause, "Pause", _KIND.PAUSE, _SEQNO),
    _KIND.RESUME: _payload(Resume, "Resume", _KIND.RESUME, _SEQNO),
    _KIND.CLOSE: _payload(Close, "Close", _KIND.CLOSE, _SEQNO),
    _KIND.PROPOSE_UPGRADE: _payload(
        ProposeUpgrade,
        "ProposeUpgrade",
        _KIND.PROPOSE_UPGRADE,
        _SEQNO,
        Field("target", choice(UpgradeTarget, 8)),
        Field("code_hash", HASH),
    ),
    _KIND.CANCEL: _payload(
        CancelProposal, "Cancel", _KIND.CANCEL, _SEQNO, Field("kind", choice(CertificateKind, 8), "proposal")
    ),
    _KIND.REGISTRATION: _payload(SetRegistration, "Registration", _KIND.REGISTRATION, _SEQNO, Field("open", BOOL)),
    _KIND.METADATA: _payload(SetMetadata, "Metadata", _KIND.METADATA, _SEQNO, Field("metadata", ref(METADATA))),
    _KIND.FEES_TO: _payload(
        FeesTo,
        "FeesTo",
        _KIND.FEES_TO,
        _SEQNO,
        Field("recipient", ADDRESS),
        Field("amount", COINS, "amount_nanoton"),
    ),
    _KIND.OWNER_MESSAGE: _payload(
        OwnerMessage,
        "OwnerMessage",
        _KIND.OWNER_MESSAGE,
        _SEQNO,
        Field("dest", ADDRESS),
        Field("value", COINS, "value_nanoton"),
        Field("body", raw()),
    ),
}
"""How each kind of command is written; the first byte is the kind."""
