"""Certificates: what operators sign, how their signatures travel, what the pool's contract checks of them.

An operator signs the representation hash (32 bytes) of the certificate's cell, with Ed25519 and its node
key. The cell names network, pool and operator set, so a signature fits nowhere else; what stops replay is
in the payload (epoch and `prev`, a sequence number, a set's number). Untrusted: every signature and every
certificate cell that comes from a peer.

1. Signatures travel with strictly ascending indexes: nobody counts twice.
2. A certificate stands when operators of more than two thirds of the weight signed the same hash.
3. The kind beside the payload is the payload's first byte.
4. `valid_until` of a settlement is the maximum: a settlement never goes stale.

A node key signs in the same way that it belongs to an owner (`prove_possession`), so that nobody registers
another's key.

Source: CONTRACTS, "Certificate"; `contracts/src/quorum.tolk`, which is the judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pytoniq_core import Builder, Cell

from contracts import signing
from contracts.commands import Command
from contracts.errors import InvalidCellError, InvalidValueError
from contracts.layout.bodies import body_cell
from contracts.layout.codec import ADDRESS, Codec, Field, choice, raw, record, sint, uint
from contracts.layout.payloads import command_cell, payload_cell, read_command, settle_payload
from contracts.model import (
    OPERATORS_MAX,
    Address,
    CertificateDomain,
    CertificateKind,
    OperatorSet,
    SettlePayload,
    Signature,
)
from contracts.opcodes import Op

VALID_FOREVER_S = 2**32 - 1

_CERTIFICATE_TAG, _POSSESSION_TAG = 0x43455254, 0x35513638


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate as it was read: `payload` begins with `kind`, and is not yet read itself."""

    domain: CertificateDomain
    kind: CertificateKind
    valid_until_s: int
    payload: Cell

    def command(self) -> Command:
        """What it commands. Raises `InvalidCellError` if the payload is malformed."""
        return read_command(self.payload)


def settle_certificate(domain: CertificateDomain, payload: SettlePayload) -> Cell:
    """The certificate of a settlement; its `.hash` is what an operator signs."""
    return certificate_cell(domain, CertificateKind.SETTLE, payload_cell(payload))


def command_certificate(domain: CertificateDomain, command: Command, *, valid_until_s: int = VALID_FOREVER_S) -> Cell:
    """The certificate of any command. `domain.set_id` is the current set's, or that of the set in an `AcceptSet`."""
    return certificate_cell(domain, command.kind, command_cell(command), valid_until_s=valid_until_s)


def certificate_cell(
    domain: CertificateDomain, kind: CertificateKind, payload: Cell, *, valid_until_s: int = VALID_FOREVER_S
) -> Cell:
    """Put a payload into the envelope that names network, pool and operator set."""
    return CERTIFICATE.cell(
        {
            "global_id": domain.global_id,
            "pool": domain.pool,
            "set_id": domain.set_id,
            "valid_until": valid_until_s,
            "kind": kind,
            "payload": payload,
        }
    )


def read_certificate(cell: Cell) -> Certificate:
    """Read the envelope of any certificate; `Certificate.command` reads what is in it.

    Raises:
        InvalidCellError: anything else, or its kind is not its payload's.
    """
    values = CERTIFICATE.parse(cell)
    payload, kind = values["payload"], values["kind"]
    if payload.bits[:8].tobytes() != bytes([kind]):
        raise InvalidCellError("certificate: its kind is not its payload's")
    return Certificate(
        domain=CertificateDomain(global_id=values["global_id"], pool=values["pool"], set_id=values["set_id"]),
        kind=kind,
        valid_until_s=values["valid_until"],
        payload=payload,
    )


def read_settle_certificate(cell: Cell) -> tuple[CertificateDomain, SettlePayload]:
    """Read the certificate of a settlement.

    Raises:
        InvalidCellError: anything else, or one that expires.
    """
    certificate = read_certificate(cell)
    if certificate.valid_until_s != VALID_FOREVER_S:
        raise InvalidCellError("certificate: a settlement's does not expire")
    return certificate.domain, settle_payload(certificate.payload)


def verify_signature(operators: OperatorSet, certificate_hash: bytes, signature: Signature) -> int:
    """Return the weight behind one operator's signature over a certificate's hash.

    Raises:
        InvalidSignatureError: no such operator, or the signature does not hold under its key.
    """
    if signature.index >= len(operators.operators):
        raise signing.InvalidSignatureError(f"operator {signature.index}: not in set {operators.set_id}")
    operator = operators.operators[signature.index]
    signing.verify(operator.node_key, certificate_hash, signature.signature)
    return operator.weight


def submit_body(certificate: Cell, signatures: Sequence[Signature], *, query_id: int = 0) -> Cell:
    """Anyone -> pool: a certificate with its signatures (1 to `OPERATORS_MAX`, in any order).

    Raises:
        InvalidValueError: none, too many, or an operator stands twice.
    """
    return body_cell(
        Op.POOL_SUBMIT_CERTIFICATE,
        query_id=query_id,
        signers_count=len(signatures),
        signatures=signature_chain(signatures),
        certificate=certificate,
    )


def signature_chain(signatures: Sequence[Signature]) -> Cell:
    """Chain the signatures, ascending by operator index: `index signature next:(Maybe ^)`."""
    if not 1 <= len(signatures) <= OPERATORS_MAX:
        raise InvalidValueError(f"signatures: expected 1 to {OPERATORS_MAX}, got {len(signatures)}")
    if len({signature.index for signature in signatures}) != len(signatures):
        raise InvalidValueError("signatures: an operator stands twice")
    link: Cell | None = None
    for signature in sorted(signatures, key=lambda s: s.index, reverse=True):
        builder = Builder().store_uint(signature.index, 16).store_bytes(signature.signature)
        link = builder.store_maybe_ref(link).end_cell()
    return link


def prove_possession(node_key: signing.SigningKey, *, global_id: int, pool: Address, owner: Address) -> bytes:
    """Sign (64 bytes) that `owner` registers this node key in `pool`: what `layout.register_body` takes."""
    return node_key.sign(possession_hash(global_id, pool, owner))


def possession_hash(global_id: int, pool: Address, owner: Address) -> bytes:
    """What a node key signs (32 bytes) to be registered by `owner` in `pool` of the network `global_id`."""
    hashed: bytes = NODE_KEY_POSSESSION.cell({"global_id": global_id, "pool": pool, "owner": owner}).hash
    return hashed


CERTIFICATE: Codec[dict[str, Any]] = record(
    "Certificate",
    Field("global_id", sint(32)),
    Field("pool", ADDRESS),
    Field("set_id", uint(32)),
    Field("valid_until", uint(32)),
    Field("kind", choice(CertificateKind, 8)),
    Field("payload", raw("CertPayload")),
    tag=(_CERTIFICATE_TAG, 32),
)
NODE_KEY_POSSESSION: Codec[dict[str, Any]] = record(
    "NodeKeyPossession",
    Field("global_id", sint(32)),
    Field("pool", ADDRESS),
    Field("owner", ADDRESS),
    tag=(_POSSESSION_TAG, 32),
)
