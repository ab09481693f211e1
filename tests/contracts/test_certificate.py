"""Certificates in Python: the same hash as TypeScript's, strict reading, strict verification."""

from __future__ import annotations

import contextlib
import hashlib
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytoniq_core import Builder, Cell

from contracts import certificate, layout, signing
from contracts.commands import Pause
from contracts.errors import InvalidCellError, InvalidValueError
from contracts.model import (
    Address,
    CertificateDomain,
    CertificateKind,
    Operator,
    OperatorSet,
    SettlePayload,
    Signature,
)
from contracts.signing import InvalidSignatureError
from tests.contracts.pool_scene import operator_keys

POOL = Address(0, hashlib.sha256(b"pool").digest())
DOMAIN = CertificateDomain(global_id=-239, pool=POOL, set_id=12)
PAYLOAD = SettlePayload(
    epoch=2,
    prev=(7).to_bytes(32, "big"),
    totals_root=(8).to_bytes(32, "big"),
    count=9,
    total_score=10,
    total_earned_nanoton=11,
    tasks=3,
    tokens=4,
    policy_hash=(5).to_bytes(32, "big"),
    cut_root=(6).to_bytes(32, "big"),
)
KEYS = operator_keys(4)
OPERATORS = OperatorSet(set_id=12, operators=tuple(Operator(node_key=k.public, weight=5) for k in KEYS))
HASH = certificate.settle_certificate(DOMAIN, PAYLOAD).hash


def test_hashes_equal_those_of_ton_core() -> None:
    """Made with @ton/core 0.63 from the same fields."""
    assert layout.payload_cell(PAYLOAD).hash.hex() == (
        "e1504ad50dbc2768bf2b10a7a111502f1c4d45bfbb43e7f3df151fbc6d6cc8ca"
    )
    assert HASH.hex() == "bfa6a2640850a5eec6c9bf9e45b016b3a3fccac01c980bcc44bb0ad90df64ce6"


def test_certificate_reads_back() -> None:
    cell = layout.parse_boc(certificate.settle_certificate(DOMAIN, PAYLOAD).to_boc())
    assert certificate.read_settle_certificate(cell) == (DOMAIN, PAYLOAD)


@given(st.integers(0, 382))
def test_every_bit_counts(position: int) -> None:
    cell = certificate.settle_certificate(DOMAIN, PAYLOAD)
    bits = cell.bits.copy()
    bits[position] ^= 1
    changed = Cell(bits, cell.refs, -1)
    assert changed.hash != HASH
    with contextlib.suppress(InvalidCellError):
        assert certificate.read_settle_certificate(changed) != (DOMAIN, PAYLOAD)


def test_a_settlement_does_not_expire() -> None:
    cell = certificate.certificate_cell(
        DOMAIN, CertificateKind.SETTLE, layout.payload_cell(PAYLOAD), valid_until_s=2_000_000_000
    )
    with pytest.raises(InvalidCellError, match="expire"):
        certificate.read_settle_certificate(cell)


def test_an_envelope_reads_back() -> None:
    cell = certificate.command_certificate(DOMAIN, Pause(gov_seqno=7), valid_until_s=2_000_000_000)
    read = certificate.read_certificate(layout.parse_boc(cell.to_boc()))
    assert (read.domain, read.kind, read.valid_until_s) == (DOMAIN, CertificateKind.PAUSE, 2_000_000_000)
    assert read.command() == Pause(gov_seqno=7)


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (CertificateKind.RESUME, layout.command_cell(Pause(gov_seqno=7))),
        (CertificateKind.SETTLE, Cell.empty()),
        (CertificateKind.SETTLE, Builder().store_uint(0, 7).end_cell()),
    ],
    ids=["another kind", "empty", "no whole byte"],
)
def test_a_kind_is_its_payloads(kind: CertificateKind, payload: Cell) -> None:
    with pytest.raises(InvalidCellError, match="kind"):
        certificate.read_certificate(certificate.certificate_cell(DOMAIN, kind, payload))


def test_an_unknown_kind_is_refused() -> None:
    cell = certificate.certificate_cell(DOMAIN, cast(CertificateKind, 0x7F), Builder().store_uint(0x7F, 8).end_cell())
    with pytest.raises(InvalidCellError, match="CertificateKind"):
        certificate.read_certificate(cell)


def test_a_node_key_proves_whose_it_is() -> None:
    """The signature holds for this network, this pool and this owner alone."""
    owner, key = Address(0, hashlib.sha256(b"an owner").digest()), KEYS[0]
    signature = certificate.prove_possession(key, global_id=-239, pool=POOL, owner=owner)
    signing.verify(key.public, certificate.possession_hash(-239, POOL, owner), signature)
    hashes = {
        certificate.possession_hash(global_id, pool, who)
        for global_id in (-239, -3)
        for pool in (POOL, owner)
        for who in (POOL, owner)
    }
    assert len(hashes) == 8


def test_a_signature_has_its_operators_weight() -> None:
    signature = Signature(index=2, signature=KEYS[2].sign(HASH))
    assert certificate.verify_signature(OPERATORS, HASH, signature) == 5


@pytest.mark.parametrize(
    "signature",
    [
        Signature(index=4, signature=KEYS[0].sign(HASH)),
        Signature(index=1, signature=KEYS[0].sign(HASH)),
        Signature(index=0, signature=KEYS[0].sign(bytes(32))),
        Signature(index=0, signature=bytes(64)),
    ],
    ids=["no such operator", "another's", "of another hash", "zeros"],
)
def test_a_signature_that_does_not_hold(signature: Signature) -> None:
    with pytest.raises(InvalidSignatureError):
        certificate.verify_signature(OPERATORS, HASH, signature)


def test_a_chain_ascends_whatever_the_order() -> None:
    signatures = [Signature(index=i, signature=bytes([i & 0xFF]) * 64) for i in (2, 0, 65535, 7)]
    link: Cell | None = certificate.signature_chain(signatures)
    indexes = []
    while link is not None:
        body = link.begin_parse()
        indexes.append(body.load_uint(16))
        assert body.load_bytes(64)[0] == indexes[-1] & 0xFF
        link = body.load_maybe_ref()
    assert indexes == [0, 2, 7, 65535]


@pytest.mark.parametrize("indexes", [[], [1, 1], list(range(181))], ids=["none", "twice", "too many"])
def test_a_chain_that_the_pool_would_refuse(indexes: list[int]) -> None:
    signatures = [Signature(index=i, signature=bytes(64)) for i in indexes]
    with pytest.raises(InvalidValueError):
        certificate.submit_body(Builder().end_cell(), signatures)
