"""Checkpoints: a node that was away trusts the hash on chain, and none of the bytes that a peer sends."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pool_fixture import POT_NANOTON, Author, fill, frame, key, log_book, participant, verdict

from attestation import gpu
from contracts import layout
from contracts.model import ZERO_HASH
from gossip import codec
from gossip.cut import CutPoint
from gossip.errors import InvalidMessageError
from gossip.log_chain import Head
from gossip.settlement import (
    CHECKPOINT_BYTES_MAX,
    CHECKPOINT_TAG,
    EVIDENCE_KEPT_MAX,
    GPU_ID_BYTES,
    GPUS_MAX,
    PARTICIPANTS_MAX,
    Base,
    EvidenceWindow,
    Payments,
    Reading,
    Settlement,
    cut_root,
    encode_checkpoint,
    totals_root,
    verify_checkpoint,
)
from gossip.sync import RESPONSE_BYTES_MAX
from gossip.tally import tally


def settled(n: int = 3) -> Settlement:
    logs, cut = log_book(n), {}
    for i in range(n):
        author = Author(i)
        author.prove()
        author.work(seconds=10, tokens=1000 * (i + 1))
        fill(logs, author.records)
        cut[key(i).public] = CutPoint(head=author.head, dead=i == 2, witnessed_s=10**9, worker_tokens=i)
    return tally(frame(n), Base(), cut, logs, verdict)


def paid() -> Settlement:
    """The same with a participant that is paid by the chain, and with GPUs."""
    made = settled()
    readings = {
        node_key: replace(
            reading,
            payments=Payments(metered_tokens=9, paid_tokens=i, worker=bytes([i]) * 32 if i else None, worker_tokens=i),
            evidence=tuple(replace(w, gpus=(bytes(16), b"g" * 16)[: i % 3], tokens_per_s=i) for w in reading.evidence),
        )
        for i, (node_key, reading) in enumerate(sorted(made.readings.items()))
    }
    return replace(made, readings=readings, payload=replace(made.payload, cut_root=cut_root(readings)))


SETTLED = paid()
DATA = encode_checkpoint(SETTLED)


def parts() -> list[codec.Value]:
    return list(codec.decode(DATA, bytes_max=1 << 20))


def test_round_trip() -> None:
    again = verify_checkpoint(DATA, SETTLED.payload_hash)
    assert again == SETTLED
    assert encode_checkpoint(again) == DATA


def test_the_base_of_the_next_epoch() -> None:
    base = verify_checkpoint(DATA, SETTLED.payload_hash).base()
    assert (base.epoch, base.payload_hash) == (1, SETTLED.payload_hash)
    assert base.reading(key(0).public).head == SETTLED.readings[key(0).public].head
    assert base.reading(key(9).public) == Reading()
    assert sum(base.earned_nanoton.values()) <= POT_NANOTON
    assert base.earned_nanoton[participant(2).address] > base.earned_nanoton[participant(0).address]


def test_a_settlement_without_participants() -> None:
    nobody = tally(replace(frame(1), participants=()), Base(), {}, log_book(1), verdict)
    assert nobody.payload.totals_root == ZERO_HASH
    assert verify_checkpoint(encode_checkpoint(nobody), nobody.payload_hash) == nobody


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
@settings(max_examples=400, deadline=None)
def test_a_changed_byte_is_refused_or_changes_nothing(at: int, change: int) -> None:
    data = bytearray(DATA)
    data[at] ^= change
    try:
        restored = verify_checkpoint(bytes(data), SETTLED.payload_hash)
    except InvalidMessageError:
        return
    assert restored == SETTLED  # a cell has more than one BoC; what counts is its hash


@given(st.integers(0, len(DATA) - 1))
def test_a_cut_checkpoint_is_refused(length: int) -> None:
    with pytest.raises(InvalidMessageError):
        verify_checkpoint(DATA[:length], SETTLED.payload_hash)


def with_leaf(index: int, value: codec.Value) -> list[codec.Value]:
    changed = parts()
    leaves = [list(leaf) for leaf in changed[2]]
    leaves[1][index] = value
    changed[2] = leaves
    return changed


def with_reading(index: int, value: codec.Value) -> list[codec.Value]:
    changed = parts()
    readings = [list(reading) for reading in changed[3]]
    readings[1][index] = value
    changed[3] = readings
    return changed


def with_window(index: int, value: codec.Value) -> list[codec.Value]:
    window = list(parts()[3][1][8][0])
    window[index] = value
    return with_reading(8, (tuple(window),))


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(["gpupool/checkpoint/2", *parts()[1:]], id="tag"),
        pytest.param(parts()[:3], id="no readings"),
        pytest.param([CHECKPOINT_TAG, b"", *parts()[2:]], id="no payload"),
        pytest.param([CHECKPOINT_TAG, layout.payload_cell(settled(2).payload).to_boc(), *parts()[2:]], id="payload"),
        pytest.param([CHECKPOINT_TAG, parts()[1], parts()[2][:-1], parts()[3]], id="a leaf less"),
        pytest.param([CHECKPOINT_TAG, parts()[1], (*parts()[2], parts()[2][0]), parts()[3]], id="a leaf twice"),
        pytest.param([CHECKPOINT_TAG, parts()[1], (), parts()[3]], id="no leaves"),
        pytest.param([CHECKPOINT_TAG, parts()[1], parts()[2], parts()[3][1:]], id="a reading less"),
        pytest.param([CHECKPOINT_TAG, parts()[1], parts()[2], 1], id="readings are a number"),
        pytest.param(with_leaf(0, bytes(31)), id="short address"),
        pytest.param(with_leaf(1, bytes(16)), id="earned nothing"),
        pytest.param(with_leaf(1, b"\xff" * 16), id="earned more than coins hold"),
        pytest.param(with_leaf(1, bytes(15)), id="earned of 15 bytes"),
        pytest.param(with_leaf(2, bytes(16)), id="score"),
        *(pytest.param(with_leaf(i, 4242), id=f"leaf field {i}") for i in range(3, 8)),
        pytest.param(with_leaf(8, 1), id="flags"),
        pytest.param(with_reading(0, bytes(32)), id="node key"),
        pytest.param(with_reading(1, 99), id="head number"),
        pytest.param(with_reading(2, bytes(32)), id="head hash"),
        *(pytest.param(with_reading(i, 4242), id=f"reading field {i}") for i in range(3, 7)),
        pytest.param(with_reading(6, None), id="no payments"),
        pytest.param(with_reading(6, (0, 0, None, 0)), id="no payments, written out"),
        pytest.param(with_reading(6, (9, 1, bytes(31), 1)), id="short worker"),
        pytest.param(with_reading(6, (1 << 63, 1, None, 1)), id="tokens of 64 bits"),
        pytest.param(with_reading(6, (9, 1, None)), id="three payments"),
        pytest.param(with_window(4, ()), id="no GPUs"),
        pytest.param(with_window(4, (bytes(15),)), id="short GPU"),
        pytest.param(with_window(4, (bytes(16),) * (GPUS_MAX + 1)), id="17 GPUs"),
        pytest.param(with_window(5, 1 << 33), id="rate of 34 bits"),
        pytest.param(with_window(5, None), id="no rate"),
        pytest.param(with_reading(7, True), id="dead"),
        pytest.param(with_reading(7, 0), id="dead as number"),
        pytest.param(with_reading(8, ()), id="evidence"),
        pytest.param(with_reading(8, ((bytes(32), 0, 1),) * 5), id="too much evidence"),
    ],
)
def test_tampering_is_refused(changed: list[codec.Value]) -> None:
    with pytest.raises(InvalidMessageError):
        verify_checkpoint(codec.encode(changed), SETTLED.payload_hash)


def test_another_settlement_is_refused() -> None:
    with pytest.raises(InvalidMessageError, match="landed"):
        verify_checkpoint(DATA, hashlib.sha256(b"other").digest())


@given(st.binary(max_size=300))
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidMessageError):
        verify_checkpoint(data, SETTLED.payload_hash)


@given(st.binary(max_size=200), st.booleans())
@settings(deadline=None)
def test_a_payload_that_is_no_cell_is_refused(boc: bytes, has_magic: bool) -> None:
    boc = b"\xb5\xee\x9c\x72" + boc if has_magic else boc
    with pytest.raises(InvalidMessageError):
        verify_checkpoint(codec.encode([CHECKPOINT_TAG, boc, *parts()[2:]]), SETTLED.payload_hash)


HEADS = st.builds(Head, st.integers(0, 2**63 - 1), st.binary(min_size=32, max_size=32))
uint63 = st.integers(0, 2**63 - 1)
hashes = st.binary(min_size=32, max_size=32)
PAYMENTS = st.builds(
    Payments, metered_tokens=uint63, paid_tokens=uint63, worker=st.none() | hashes, worker_tokens=uint63
)
READINGS = st.builds(
    Reading,
    head=HEADS,
    work_end_s=st.integers(0, 2**32 - 1),
    witnessed_s=st.integers(0, 2**48 - 1),
    credited_s=st.integers(0, 2**48 - 1),
    payments=st.just(Payments()) | PAYMENTS,
    dead=st.booleans(),
    evidence=st.lists(
        st.builds(
            EvidenceWindow,
            record=hashes,
            from_s=st.integers(0, 2**33 - 1),
            until_s=st.integers(0, 2**33 - 1),
            machine=hashes,
            gpus=st.lists(st.binary(min_size=16, max_size=16), max_size=GPUS_MAX).map(tuple),
            tokens_per_s=st.integers(0, 2**32),
        ),
        max_size=EVIDENCE_KEPT_MAX,
    ).map(tuple),
)


@given(st.dictionaries(hashes, READINGS, max_size=4))
@settings(deadline=None)
def test_every_reading_survives_a_checkpoint(readings: dict[bytes, Reading]) -> None:
    made = replace(SETTLED, readings=readings, payload=replace(SETTLED.payload, cut_root=cut_root(readings)))
    assert verify_checkpoint(encode_checkpoint(made), made.payload_hash).readings == readings


@given(st.dictionaries(st.binary(min_size=32, max_size=32), READINGS, max_size=5), st.randoms(use_true_random=False))
def test_the_cut_root_covers_every_reading_and_no_order(readings: dict[bytes, Reading], random: object) -> None:
    shuffled = dict(random.sample(list(readings.items()), len(readings)))
    assert cut_root(shuffled) == cut_root(readings)
    for node_key, reading in readings.items():
        paid = replace(reading.payments, metered_tokens=reading.payments.metered_tokens ^ 1)
        changes = [{"credited_s": reading.credited_s ^ 1}, {"payments": paid}, {"dead": not reading.dead}]
        for window in reading.evidence[:1]:
            others = reading.evidence[1:]
            changes.append({"evidence": (replace(window, tokens_per_s=window.tokens_per_s ^ 1), *others)})
            changes.append({"evidence": (replace(window, gpus=(*window.gpus, bytes(16))), *others)})
        for change in changes:
            assert cut_root({**readings, node_key: replace(reading, **change)}) != cut_root(readings)


def test_the_totals_root_does_not_depend_on_the_order_of_leaves() -> None:
    assert totals_root(SETTLED.leaves[::-1]) == totals_root(SETTLED.leaves) == SETTLED.payload.totals_root
    assert totals_root(()) == ZERO_HASH


REGISTERED_MAX = 10_000
"""Participants of a pool at a time (docs/contracts.md)."""


def bytes_at_worst(*, gpus: int, evidence: int = EVIDENCE_KEPT_MAX, is_paid: bool = True) -> int:
    """What a participant with so many GPUs takes in a checkpoint, all numbers being as long as they may."""
    window = EvidenceWindow(
        record=bytes(32),
        from_s=(1 << 33) - 1,
        until_s=(1 << 33) - 1,
        machine=bytes(32),
        gpus=(bytes(GPU_ID_BYTES),) * gpus,
        tokens_per_s=1 << 32,
    )
    most = (1 << 63) - 1
    payments = Payments(metered_tokens=most, paid_tokens=most, worker=bytes(32), worker_tokens=most)
    reading = Reading(
        head=Head(most, bytes(32)),
        work_end_s=(1 << 32) - 1,
        witnessed_s=(1 << 48) - 1,
        credited_s=(1 << 48) - 1,
        payments=payments if is_paid else Payments(),
        evidence=(window,) * evidence,
    )
    leaf = replace(
        SETTLED.leaves[0],
        tokens=(1 << 64) - 1,
        tasks=(1 << 32) - 1,
        uptime_s=(1 << 32) - 1,
        quality=(1 << 16) - 1,
        reputation=(1 << 16) - 1,
        flags=(1 << 8) - 1,
    )
    sizes = [
        len(
            encode_checkpoint(
                Settlement(payload=SETTLED.payload, leaves=(leaf,) * n, readings=dict.fromkeys(keys, reading))
            )
        )
        for n, keys in ((0, ()), (1, (bytes(32),)))
    ]
    return sizes[1] - sizes[0]


HEADERS_BYTES = 400
"""The payload, and the arrays' lengths."""


@pytest.mark.parametrize(
    ("participants", "gpus", "is_paid", "bytes_max"),
    [
        pytest.param(4_000, GPUS_MAX, True, RESPONSE_BYTES_MAX, id="an answer at worst"),
        pytest.param(5_600, 8, True, RESPONSE_BYTES_MAX, id="an answer, eight GPUs"),
        pytest.param(9_100, 0, True, RESPONSE_BYTES_MAX, id="an answer, no GPUs"),
        pytest.param(10_500, 0, False, RESPONSE_BYTES_MAX, id="an answer, no GPUs and no worker contracts"),
        pytest.param(16_100, GPUS_MAX, True, CHECKPOINT_BYTES_MAX, id="a checkpoint at worst"),
    ],
)
def test_so_many_fit_an_answer_and_so_many_a_checkpoint(
    participants: int, gpus: int, is_paid: bool, bytes_max: int
) -> None:
    size = bytes_at_worst(gpus=gpus, is_paid=is_paid)
    assert HEADERS_BYTES + participants * size <= bytes_max < HEADERS_BYTES + 1.02 * participants * size


def test_at_worst_a_whole_registry_and_all_who_ever_left_fit_a_checkpoint() -> None:
    registered = REGISTERED_MAX * bytes_at_worst(gpus=GPUS_MAX)
    left = (PARTICIPANTS_MAX - REGISTERED_MAX) * bytes_at_worst(gpus=0, evidence=0, is_paid=False)
    assert HEADERS_BYTES + registered + left <= CHECKPOINT_BYTES_MAX


def test_a_settlement_holds_as_many_gpus_as_evidence_proves() -> None:
    assert GPUS_MAX == gpu.GPUS_MAX
