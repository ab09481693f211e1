"""Receipts on the wire: what is out of range, out of order or not signed is refused, whoever signed the record."""

from __future__ import annotations

from dataclasses import replace

import pytest
from node_pool import Network
from pool_fixture import POOL, key

from gossip import codec
from gossip.errors import InvalidMessageError
from gossip.log_chain import Placement
from gossip.receipts import make_receipt
from gossip.records import (
    JOB_ID_BYTES_MAX,
    RECEIPTS_MAX,
    RECORD_BYTES_MAX,
    PoolId,
    Receipt,
    ReceiptBody,
    make_record,
    parse_record,
    trust_record,
    verify_record,
)

KEY, GATEWAY, CLIENT = (key(i) for i in (0, 8, 9))
CLAIMED = {"job_id": b"job", "time_s": 130, "tokens": 70}
RECEIPT = make_receipt(GATEWAY, POOL, KEY.public, **CLAIMED)
RECORD = make_record(KEY, POOL, 8, bytes(32), ReceiptBody((RECEIPT,)))
FIELDS = codec.decode(RECORD.signed, bytes_max=RECORD_BYTES_MAX)
CLAIM = FIELDS[7][0][0]
"""The receipt, as it is signed."""


def sealed(body: codec.Value) -> bytes:
    return codec.seal(codec.encode((*FIELDS[:7], body)), KEY)


def refused(body: codec.Value) -> str:
    """Why a record with this body is refused, although it is signed."""
    with pytest.raises(InvalidMessageError) as caught:
        parse_record(sealed(body), POOL)
    return str(caught.value)


def test_a_receipt_of_the_wrong_length_is_refused_although_signed() -> None:
    for claim in (CLAIM[:-1], (*CLAIM, 0)):
        assert refused(((claim,),))
    assert refused((CLAIM,))
    assert refused(CLAIM)
    assert parse_record(sealed(((CLAIM,),)), POOL).body == RECORD.body


def written(*receipts: Receipt) -> bytes:
    """A record with these receipts, which its owner signs whatever they are."""
    return sealed((tuple((r.signer, r.job_id, r.time_s, r.tokens, r.signature) for r in receipts),))


FALSE = [
    pytest.param(make_receipt(GATEWAY, POOL, key(1).public, **CLAIMED), id="for another log"),
    pytest.param(make_receipt(GATEWAY, PoolId(POOL.network, bytes(32)), KEY.public, **CLAIMED), id="for another pool"),
    pytest.param(
        make_receipt(GATEWAY, PoolId(POOL.network + 1, POOL.account), KEY.public, **CLAIMED), id="for another network"
    ),
    pytest.param(replace(RECEIPT, signer=CLIENT.public), id="another signer than signed"),
    pytest.param(replace(RECEIPT, signer=KEY.public), id="by the log's owner in the signer's name"),
    pytest.param(replace(RECEIPT, job_id=b"jobs"), id="another job than was signed"),
    pytest.param(replace(RECEIPT, time_s=131), id="another time than was signed"),
    pytest.param(replace(RECEIPT, tokens=71), id="more tokens than were signed"),
    pytest.param(replace(RECEIPT, signature=bytes(64)), id="no signature"),
    pytest.param(
        replace(RECEIPT, signature=make_receipt(GATEWAY, POOL, KEY.public, **CLAIMED | {"tokens": 1}).signature),
        id="another receipt's signature",
    ),
]


@pytest.mark.parametrize("receipt", FALSE)
def test_a_record_with_a_receipt_that_does_not_hold_is_refused_although_signed(receipt: Receipt) -> None:
    good = make_receipt(CLIENT, POOL, KEY.public, **CLAIMED | {"job_id": b"another"})
    assert verify_record(parse_record(written(RECEIPT), POOL)) == RECORD
    for held in ([receipt], sorted([receipt, good], key=lambda each: each.id)):
        with pytest.raises(InvalidMessageError, match="signature"):
            verify_record(parse_record(written(*held), POOL))


@pytest.mark.parametrize("receipt", FALSE)
def test_an_own_record_with_a_receipt_that_does_not_hold_is_not_signed(receipt: Receipt) -> None:
    with pytest.raises(InvalidMessageError, match="signature"):
        make_record(KEY, POOL, 8, bytes(32), ReceiptBody((receipt,)))


async def test_a_node_drops_a_record_with_a_receipt_that_does_not_hold_and_takes_the_true_one() -> None:
    node = Network(2).members[1].node
    claim = (*CLAIM[:3], 71, CLAIM[4])
    false = codec.seal(codec.encode((*FIELDS[:4], 1, *FIELDS[5:7], ((claim,),))), KEY)
    true = make_record(KEY, POOL, 1, bytes(32), RECORD.body)
    assert await node.take_records([false, true.wire]) == {Placement.EXTENDED: 1}
    assert node.drops == {"record: signature": 1}
    assert node.logs[KEY.public].head.hash == true.hash
    assert node.logs[KEY.public].fork is None


def test_receipts_are_looked_at_after_the_signature_of_their_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else whoever is not registered could have a hundred signatures checked with one record."""
    checked: list[bytes] = []
    monkeypatch.setattr(codec, "require_signature", lambda key, *_: checked.append(key))
    verify_record(parse_record(RECORD.wire, POOL))
    assert checked == [KEY.public, GATEWAY.public]


def test_what_was_verified_before_it_was_stored_is_not_verified_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(codec, "require_signature")
    assert trust_record(parse_record(RECORD.wire, POOL)) == RECORD


@pytest.mark.parametrize(
    ("index", "value"),
    [
        pytest.param(0, bytes(31), id="short signer"),
        pytest.param(1, bytes(JOB_ID_BYTES_MAX + 1), id="long job id"),
        pytest.param(1, "job", id="job id as text"),
        pytest.param(2, 1 << 32, id="time of 33 bits"),
        pytest.param(2, -1, id="negative time"),
        pytest.param(3, 1 << 48, id="tokens of 49 bits"),
        pytest.param(3, -1, id="negative tokens"),
        pytest.param(3, None, id="no tokens"),
        pytest.param(4, bytes(63), id="short signature"),
    ],
)
def test_a_receipt_out_of_range_is_refused_although_signed(index: int, value: codec.Value) -> None:
    claim = list(CLAIM)
    claim[index] = value
    assert refused(((tuple(claim),),))


@pytest.mark.parametrize(
    "jobs",
    [
        pytest.param([], id="none"),
        pytest.param([b"a", b"a"], id="a job twice"),
        pytest.param([b"b", b"a"], id="jobs descend"),
        pytest.param([b"%03d" % i for i in range(RECEIPTS_MAX + 1)], id="101 receipts"),
    ],
)
def test_receipts_out_of_order_are_refused_although_signed(jobs: list[bytes]) -> None:
    signed = [make_receipt(GATEWAY, POOL, KEY.public, **CLAIMED | {"job_id": job}) for job in jobs]
    with pytest.raises(InvalidMessageError, match="receipts"):
        make_record(KEY, POOL, 1, bytes(32), ReceiptBody(tuple(signed)))
    with pytest.raises(InvalidMessageError, match="receipts"):
        parse_record(written(*signed), POOL)


def test_signers_ascend_before_jobs() -> None:
    signers = sorted((GATEWAY, CLIENT), key=lambda signer: signer.public)
    low, high = (
        make_receipt(signer, POOL, KEY.public, **CLAIMED | {"job_id": job})
        for signer, job in zip(signers, (b"z", b"a"), strict=True)
    )
    assert make_record(KEY, POOL, 1, bytes(32), ReceiptBody((low, high))).body == ReceiptBody((low, high))
    with pytest.raises(InvalidMessageError, match="ascend"):
        make_record(KEY, POOL, 1, bytes(32), ReceiptBody((high, low)))
