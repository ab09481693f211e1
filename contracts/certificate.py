"""Certificates: what operators sign, how their signatures travel, what the pool's contract checks of them.

An operator signs the representation hash (32 bytes) of the certificate's cell, with Ed25519 and its node
key. The cell names network, pool and operator set, so a signature fits nowhere else; what stops replay is
in the payload (epoch and `prev`). Untrusted: every signature and every certificate cell that comes from
a peer.

1. Signatures travel with strictly ascending indexes: nobody counts twice.
2. A certificate stands when operators of more than two thirds of the weight signed the same hash.
3. `valid_until` of a settlement is the maximum: a settlement never goes stale.

Source: CONTRACTS, "Certificate"; `contracts/src/quorum.tolk`, which is the judge.
"""

from __future__ import annotations

from collections.abc import Sequence

from pytoniq_core import Builder, Cell

from contracts import signing
from contracts.errors import InvalidCellError, InvalidValueError
from contracts.layout.cells import Reader, store_address
from contracts.layout.messages import payload_cell, settle_payload
from contracts.model import (
    OPERATORS_MAX,
    CertificateDomain,
    CertificateKind,
    OperatorSet,
    SettlePayload,
    Signature,
    require_uint,
)
from contracts.opcodes import Op

VALID_FOREVER_S = 2**32 - 1

_TAG = 0x43455254


def settle_certificate(domain: CertificateDomain, payload: SettlePayload) -> Cell:
    """The certificate of a settlement; its `.hash` is what an operator signs."""
    return certificate_cell(domain, CertificateKind.SETTLE, payload_cell(payload))


def certificate_cell(
    domain: CertificateDomain, kind: CertificateKind, payload: Cell, *, valid_until_s: int = VALID_FOREVER_S
) -> Cell:
    """Put a payload into the envelope that names network, pool and operator set."""
    require_uint("valid_until_s", valid_until_s, 32)
    envelope = Builder().store_uint(_TAG, 32).store_int(domain.global_id, 32)
    store_address(envelope, domain.pool).store_uint(domain.set_id, 32)
    return envelope.store_uint(valid_until_s, 32).store_uint(kind, 8).store_ref(payload).end_cell()


def read_settle_certificate(cell: Cell) -> tuple[CertificateDomain, SettlePayload]:
    """Read the certificate of a settlement.

    Raises:
        InvalidCellError: anything else, or one that expires.
    """
    reader = Reader(cell, "certificate")
    reader.tag(_TAG, 32)
    global_id, pool, set_id = reader.sint(32), reader.address(), reader.uint(32)
    if reader.uint(32) != VALID_FOREVER_S:
        raise InvalidCellError("certificate: a settlement's does not expire")
    reader.tag(CertificateKind.SETTLE, 8)
    payload = settle_payload(reader.ref())
    reader.end()
    return CertificateDomain(global_id=global_id, pool=pool, set_id=set_id), payload


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
    require_uint("query_id", query_id, 64)
    chain = signature_chain(signatures)
    body = Builder().store_uint(Op.POOL_SUBMIT_CERTIFICATE, 32).store_uint(query_id, 64)
    return body.store_uint(len(signatures), 8).store_ref(certificate).store_ref(chain).end_cell()


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
