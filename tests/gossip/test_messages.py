"""Messages of an epoch's close: read back as they were signed, and refused when anything differs."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pool_fixture import POOL, START_S, evidence, key

from contracts.model import OPERATORS_MAX
from contracts.signing import verify
from gossip import codec
from gossip.errors import InvalidMessageError
from gossip.log_chain import ForkProof, Head
from gossip.messages import (
    ATTEST_BYTES_MAX,
    FORKS_MAX,
    OBSERVATION_BYTES_MAX,
    PROPOSAL_BYTES_MAX,
    ListedObservation,
    Observation,
    ObservedLog,
    make_attest,
    make_observation,
    make_proposal,
    parse_attest,
    parse_observation,
    parse_proposal,
)
from gossip.records import PoolId, make_record
from gossip.wire import KINDS, kind_of, parse_message

KEY = key(0)
HEAD = Head(5, b"\x03" * 32)
hashes = st.binary(min_size=32, max_size=32)
uint32 = st.integers(0, 2**32 - 1)
LOGS = st.dictionaries(
    hashes,
    st.builds(
        ObservedLog,
        head=st.builds(Head, st.integers(0, 2**63 - 1), hashes),
        witnessed_s=st.integers(0, 2**48 - 1),
        worker_tokens=st.none() | st.integers(0, 2**63 - 1),
    ),
    max_size=6,
)


def fork(i: int = 1, seq: int = 1) -> ForkProof:
    first, second = (make_record(key(i), POOL, seq, bytes(32), evidence(START_S + k)) for k in range(2))
    return ForkProof(first, second)


def observation(**changes: object) -> Observation:
    fields = {
        "epoch": 3,
        "set_id": 1,
        "policy_hash": b"\x01" * 32,
        "base": b"\x02" * 32,
        "logs": {key(i).public: ObservedLog(head=HEAD, witnessed_s=4, worker_tokens=5) for i in (1, 2)},
        "forks": (fork(),),
    }
    return make_observation(KEY, POOL, **(fields | changes))


OBSERVATION = observation()
LISTED = tuple(ListedObservation(index=i, digest=bytes([i]) * 32) for i in (0, 2, 3))
PROPOSAL = make_proposal(KEY, POOL, epoch=3, view=1, set_id=1, listed=LISTED, cert_hash=b"\x04" * 32)
ATTEST = make_attest(KEY, POOL, epoch=3, cert_hash=b"\x04" * 32)
PARSERS = {OBSERVATION.wire: parse_observation, PROPOSAL.wire: parse_proposal, ATTEST.wire: parse_attest}
MESSAGES = [pytest.param(wire, parse, id=parse.__name__) for wire, parse in PARSERS.items()]


@given(LOGS, uint32, uint32, hashes, hashes)
def test_an_observation_survives_the_wire(
    logs: dict[bytes, ObservedLog], epoch: int, set_id: int, policy_hash: bytes, base: bytes
) -> None:
    made = make_observation(
        KEY, POOL, epoch=epoch, set_id=set_id, policy_hash=policy_hash, base=base, logs=logs, forks=()
    )
    again = parse_observation(made.wire, POOL)
    assert again == made
    assert again.logs == logs
    assert (again.operator, again.epoch, again.set_id) == (KEY.public, epoch, set_id)
    assert (again.policy_hash, again.base) == (policy_hash, base)


def test_an_observation_does_not_depend_on_the_order_of_its_logs() -> None:
    assert observation(logs=dict(reversed(OBSERVATION.logs.items()))).digest == OBSERVATION.digest


@given(
    st.lists(st.tuples(st.integers(0, 2**16 - 1), hashes), max_size=20, unique_by=lambda item: item[0]), uint32, hashes
)
def test_a_proposal_survives_the_wire(items: list[tuple[int, bytes]], view: int, cert_hash: bytes) -> None:
    listed = tuple(ListedObservation(index=index, digest=digest) for index, digest in sorted(items))
    made = make_proposal(KEY, POOL, epoch=1, view=view, set_id=1, listed=listed, cert_hash=cert_hash)
    again = parse_proposal(made.wire, POOL)
    assert again == made
    assert (again.listed, again.view, again.cert_hash) == (listed, view, cert_hash)


@given(uint32, hashes)
def test_an_attest_survives_the_wire_and_carries_what_the_contract_checks(epoch: int, cert_hash: bytes) -> None:
    made = make_attest(KEY, POOL, epoch=epoch, cert_hash=cert_hash)
    assert parse_attest(made.wire, POOL) == made
    verify(KEY.public, cert_hash, made.cert_signature)


@pytest.mark.parametrize(("wire", "parse"), MESSAGES)
@given(data=st.data())
def test_any_changed_byte_is_refused(wire: bytes, parse: object, data: st.DataObject) -> None:
    changed = bytearray(wire)
    changed[data.draw(st.integers(0, len(wire) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(InvalidMessageError):
        parse(bytes(changed), POOL)


@pytest.mark.parametrize(("wire", "parse"), MESSAGES)
def test_of_another_pool_or_network_or_kind(wire: bytes, parse: object) -> None:
    for pool in (PoolId(POOL.network, bytes(32)), PoolId(-3, POOL.account)):
        with pytest.raises(InvalidMessageError):
            parse(wire, pool)
    for other, of_another_kind in PARSERS.items():
        if other != wire:
            with pytest.raises(InvalidMessageError):
                of_another_kind(wire, POOL)


@pytest.mark.parametrize(
    ("parse", "limit"),
    [
        (parse_observation, OBSERVATION_BYTES_MAX),
        (parse_proposal, PROPOSAL_BYTES_MAX),
        (parse_attest, ATTEST_BYTES_MAX),
    ],
)
def test_too_long_is_refused_unread(parse: object, limit: int) -> None:
    with pytest.raises(InvalidMessageError, match="size"):
        parse(bytes(limit + 1), POOL)


def signed_fields(wire: bytes) -> list[codec.Value]:
    signed, _ = codec.open_envelope(wire, bytes_max=OBSERVATION_BYTES_MAX)
    return list(codec.decode(signed, bytes_max=OBSERVATION_BYTES_MAX))


def resealed(wire: bytes, index: int, value: codec.Value) -> bytes:
    fields = signed_fields(wire)
    fields[index] = value
    return codec.seal(codec.encode(fields), KEY)


LOG = (key(1).public, 5, bytes(32), 4, 5)
DESCENDING = tuple((k, *LOG[1:]) for k in sorted((key(1).public, key(2).public), reverse=True))


@pytest.mark.parametrize(
    ("wire", "index", "value"),
    [
        (OBSERVATION.wire, 3, key(1).public),
        (OBSERVATION.wire, 4, 1 << 32),
        (OBSERVATION.wire, 4, True),
        (OBSERVATION.wire, 5, -1),
        (OBSERVATION.wire, 6, bytes(31)),
        (OBSERVATION.wire, 7, None),
        (OBSERVATION.wire, 8, 1),
        (OBSERVATION.wire, 8, (LOG[:4],)),
        (OBSERVATION.wire, 8, ((b"short", *LOG[1:]),)),
        (OBSERVATION.wire, 8, ((LOG[0], 1 << 63, *LOG[2:]),)),
        (OBSERVATION.wire, 8, ((*LOG[:3], 1 << 48, 5),)),
        (OBSERVATION.wire, 8, ((*LOG[:4], -1),)),
        (OBSERVATION.wire, 8, ((*LOG[:4], 1 << 63),)),
        (OBSERVATION.wire, 8, ((*LOG[:4], False),)),
        (OBSERVATION.wire, 8, ((*LOG[:3], None, 5),)),
        (OBSERVATION.wire, 8, (LOG, LOG)),
        (OBSERVATION.wire, 8, DESCENDING),
        (OBSERVATION.wire, 9, ((fork().first.wire,),)),
        (OBSERVATION.wire, 9, ((b"a", b"b"),)),
        (OBSERVATION.wire, 9, ((fork().first.wire, fork().first.wire),)),
        (OBSERVATION.wire, 9, ((fork(1).first.wire, fork(2).second.wire),)),
        (OBSERVATION.wire, 9, ((fork(1, 1).first.wire, fork(1, 2).second.wire),)),
        (OBSERVATION.wire, 9, ((codec.encode((fork().first.signed, bytes(64))), fork().second.wire),)),
        (OBSERVATION.wire, 9, ((fork().first.wire, fork().second.wire),) * (FORKS_MAX + 1)),
        (PROPOSAL.wire, 3, key(1).public),
        (PROPOSAL.wire, 5, 1 << 32),
        (PROPOSAL.wire, 7, ((1, bytes(32)), (1, bytes(32)))),
        (PROPOSAL.wire, 7, ((2, bytes(32)), (1, bytes(32)))),
        (PROPOSAL.wire, 7, ((1 << 16, bytes(32)),)),
        (PROPOSAL.wire, 7, ((1, bytes(31)),)),
        (PROPOSAL.wire, 7, tuple((i, bytes(32)) for i in range(OPERATORS_MAX + 1))),
        (PROPOSAL.wire, 8, bytes(33)),
        (ATTEST.wire, 3, key(1).public),
        (ATTEST.wire, 5, b"\x05" * 32),
        (ATTEST.wire, 6, key(1).sign(b"\x04" * 32)),
        (ATTEST.wire, 6, bytes(63)),
    ],
)
def test_a_field_out_of_range_is_refused_although_signed(wire: bytes, index: int, value: codec.Value) -> None:
    parse = PARSERS[wire]
    with pytest.raises(InvalidMessageError):
        parse(resealed(wire, index, value), POOL)


def test_a_message_with_a_field_more_or_less_is_refused() -> None:
    for wire, parse in PARSERS.items():
        for fields in (signed_fields(wire)[:-1], [*signed_fields(wire), 0]):
            with pytest.raises(InvalidMessageError):
                parse(codec.seal(codec.encode(fields), KEY), POOL)


def test_the_makers_signature_is_checked_before_those_of_the_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else anyone could make a node check 2 * FORKS_MAX signatures for nothing."""
    signed, _ = codec.open_envelope(OBSERVATION.wire, bytes_max=OBSERVATION_BYTES_MAX)
    checked = []
    monkeypatch.setattr("gossip.messages.verify_record", lambda record: checked.append(record) or record)
    with pytest.raises(InvalidMessageError):
        parse_observation(codec.encode((signed, bytes(64))), POOL)
    assert checked == []
    parse_observation(OBSERVATION.wire, POOL)
    assert len(checked) == 2


def test_no_more_forks_are_shown_than_a_peer_reads() -> None:
    made = observation(forks=tuple(fork(i) for i in range(FORKS_MAX + 4)))
    assert len(parse_observation(made.wire, POOL).forks) == FORKS_MAX


def test_digests_are_of_what_is_signed() -> None:
    signed, _ = codec.open_envelope(OBSERVATION.wire, bytes_max=OBSERVATION_BYTES_MAX)
    assert OBSERVATION.digest == hashlib.sha256(signed).digest()


def test_every_kind_is_read_by_its_name() -> None:
    for message in (OBSERVATION, PROPOSAL, ATTEST):
        assert kind_of(message) in KINDS
        assert parse_message(kind_of(message), message.wire, POOL) == message
    with pytest.raises(InvalidMessageError):
        parse_message("record", OBSERVATION.wire, POOL)
