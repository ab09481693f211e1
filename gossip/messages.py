"""What operators say to one another when an epoch closes: observation, proposal, attest.

Decides whether bytes are such a message of this pool and whether its signature holds. Whether it may be
acted upon (epoch, set, quorum) is decided in `gossip.epoch_close`. Every byte comes from a peer.

1. Each is an envelope [signed, signature]; `signed` is a canonical array with its own domain tag first.
2. An observation's digest is SHA-256 of its `signed`; a proposal lists observations by index and digest
   (the signature comes with the body, without which it could not be checked anyway).
3. An attest carries, besides its own signature, the one over the certificate cell's hash that the
   contract checks: without its own, an old attest could be replayed as one of this epoch.

Source: PROTOCOL, "Epoch close".
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from contracts.model import OPERATORS_MAX
from contracts.signing import SigningKey
from gossip import codec
from gossip.errors import InvalidMessageError
from gossip.log_chain import ForkProof, Head
from gossip.records import RECORD_BYTES_MAX, PoolId, parse_record, verify_record

OBSERVATION_TAG = "gpupool/observation/1"
PROPOSAL_TAG = "gpupool/proposal/1"
ATTEST_TAG = "gpupool/attest/1"
OBSERVATION_BYTES_MAX = 2 * 1024 * 1024
PROPOSAL_BYTES_MAX = 64 * 1024
ATTEST_BYTES_MAX = 1024
ENTRIES_MAX = 12_000
FORKS_MAX = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedLog:
    """How far one participant's log reached for the observer; both readings are cumulative."""

    head: Head
    witnessed_s: int
    worker_tokens: int | None
    """Cumulative, of the participant's worker contract on chain; None: not read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """An operator's signed statement at epoch close."""

    operator: bytes
    epoch: int
    set_id: int
    policy_hash: bytes
    base: bytes
    """Payload hash of the settlement on which the observer builds."""
    logs: dict[bytes, ObservedLog]
    """By node key."""
    forks: tuple[ForkProof, ...]
    digest: bytes
    wire: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedObservation:
    """An observation as a proposal names it: the index of its maker in the set, its digest."""

    index: int
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """The leader's list of observations and the certificate hash that follows from them."""

    leader: bytes
    epoch: int
    view: int
    set_id: int
    listed: tuple[ListedObservation, ...]
    cert_hash: bytes
    digest: bytes
    wire: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Attest:
    """An operator's vote: its signature over the certificate cell's hash."""

    operator: bytes
    epoch: int
    cert_hash: bytes
    cert_signature: bytes
    wire: bytes


def make_observation(
    key: SigningKey,
    pool: PoolId,
    *,
    epoch: int,
    set_id: int,
    policy_hash: bytes,
    base: bytes,
    logs: dict[bytes, ObservedLog],
    forks: tuple[ForkProof, ...],
) -> Observation:
    """Sign what this operator holds at the epoch's close."""
    entries = tuple(
        (node_key, log.head.seq, log.head.hash, log.witnessed_s, log.worker_tokens)
        for node_key, log in sorted(logs.items())
    )
    proofs = tuple((fork.first.wire, fork.second.wire) for fork in forks[:FORKS_MAX])
    fields = (epoch, set_id, policy_hash, base, entries, proofs)
    return parse_observation(_seal(OBSERVATION_TAG, key, pool, fields), pool)


def parse_observation(wire: bytes, pool: PoolId) -> Observation:
    """Read and verify an observation, the fork proofs in it included.

    Raises:
        InvalidMessageError: malformed, of another pool, logs not ascending, or a signature in it does not hold.
    """
    operator, fields, signed, signature = _open(OBSERVATION_TAG, wire, pool, 6, OBSERVATION_BYTES_MAX)
    codec.require_signature(operator, signed, signature)  # before the many that the fork proofs hold
    epoch, set_id, policy_hash, base, entries, proofs = fields
    logs: dict[bytes, ObservedLog] = {}
    last = b""
    for item in codec.as_array(entries, "logs", length_max=ENTRIES_MAX):
        node_key, seq, head, witnessed_s, tokens = codec.as_array(item, "log", 5)
        node_key = codec.as_bytes(node_key, "node_key", 32)
        if node_key <= last:
            raise InvalidMessageError("observation: the logs must ascend")
        last = node_key
        logs[node_key] = ObservedLog(
            head=Head(codec.as_uint(seq, "seq"), codec.as_bytes(head, "head", 32)),
            witnessed_s=codec.as_uint(witnessed_s, "witnessed_s", 48),
            worker_tokens=codec.as_optional_uint(tokens, "worker_tokens"),
        )
    return Observation(
        operator=operator,
        epoch=codec.as_uint(epoch, "epoch", 32),
        set_id=codec.as_uint(set_id, "set_id", 32),
        policy_hash=codec.as_bytes(policy_hash, "policy_hash", 32),
        base=codec.as_bytes(base, "base", 32),
        logs=logs,
        forks=tuple(_read_fork(item, pool) for item in codec.as_array(proofs, "forks", length_max=FORKS_MAX)),
        digest=hashlib.sha256(signed).digest(),
        wire=wire,
    )


def make_proposal(
    key: SigningKey,
    pool: PoolId,
    *,
    epoch: int,
    view: int,
    set_id: int,
    listed: tuple[ListedObservation, ...],
    cert_hash: bytes,
) -> Proposal:
    """Sign the proposal of this node's view."""
    items = tuple((item.index, item.digest) for item in listed)
    return parse_proposal(_seal(PROPOSAL_TAG, key, pool, (epoch, view, set_id, items, cert_hash)), pool)


def parse_proposal(wire: bytes, pool: PoolId) -> Proposal:
    """Read a proposal and verify its signature; the listed observations are checked with their bodies.

    Raises:
        InvalidMessageError: malformed, of another pool, listed indexes not ascending, or a bad signature.
    """
    leader, fields, signed, signature = _open(PROPOSAL_TAG, wire, pool, 5, PROPOSAL_BYTES_MAX)
    epoch, view, set_id, items, cert_hash = fields
    listed = []
    last = -1
    for item in codec.as_array(items, "listed", length_max=OPERATORS_MAX):
        index, digest = codec.as_array(item, "listed", 2)
        index = codec.as_uint(index, "index", 16)
        if index <= last:
            raise InvalidMessageError("proposal: the listed operators must ascend")
        last = index
        listed.append(ListedObservation(index=index, digest=codec.as_bytes(digest, "digest", 32)))
    proposal = Proposal(
        leader=leader,
        epoch=codec.as_uint(epoch, "epoch", 32),
        view=codec.as_uint(view, "view", 32),
        set_id=codec.as_uint(set_id, "set_id", 32),
        listed=tuple(listed),
        cert_hash=codec.as_bytes(cert_hash, "cert_hash", 32),
        digest=hashlib.sha256(signed).digest(),
        wire=wire,
    )
    codec.require_signature(leader, signed, signature)
    return proposal


def make_attest(key: SigningKey, pool: PoolId, *, epoch: int, cert_hash: bytes) -> Attest:
    """Sign the certificate. What stands behind it must be durable before this leaves the node."""
    return parse_attest(_seal(ATTEST_TAG, key, pool, (epoch, cert_hash, key.sign(cert_hash))), pool)


def parse_attest(wire: bytes, pool: PoolId) -> Attest:
    """Read and verify an attest: both signatures.

    Raises:
        InvalidMessageError: malformed, of another pool, or a signature does not hold.
    """
    operator, fields, signed, signature = _open(ATTEST_TAG, wire, pool, 3, ATTEST_BYTES_MAX)
    epoch, cert_hash, cert_signature = fields
    attest = Attest(
        operator=operator,
        epoch=codec.as_uint(epoch, "epoch", 32),
        cert_hash=codec.as_bytes(cert_hash, "cert_hash", 32),
        cert_signature=codec.as_bytes(cert_signature, "cert_signature", 64),
        wire=wire,
    )
    codec.require_signature(operator, signed, signature)
    codec.require_signature(operator, attest.cert_hash, attest.cert_signature)
    return attest


def _seal(tag: str, key: SigningKey, pool: PoolId, fields: tuple[codec.Value, ...]) -> bytes:
    return codec.seal(codec.encode((tag, pool.network, pool.account, key.public, *fields)), key)


def _open(
    tag: str, wire: bytes, pool: PoolId, count: int, bytes_max: int
) -> tuple[bytes, tuple[codec.Value, ...], bytes, bytes]:
    signed, signature = codec.open_envelope(wire, bytes_max=bytes_max)
    items = codec.as_array(codec.decode(signed, bytes_max=bytes_max), tag, 4 + count)
    if items[0] != tag or items[1] != pool.network or items[2] != pool.account:
        raise InvalidMessageError(f"{tag}: of another kind, version, network or pool")
    return codec.as_bytes(items[3], "signer", 32), items[4:], signed, signature


def _read_fork(item: codec.Value, pool: PoolId) -> ForkProof:
    wires = codec.as_array(item, "fork", 2)
    first, second = (
        verify_record(parse_record(codec.as_bytes(wire, "record", length_max=RECORD_BYTES_MAX), pool)) for wire in wires
    )
    if first.node_key != second.node_key or first.seq != second.seq or first.hash == second.hash:
        raise InvalidMessageError("fork: the two records do not contradict each other")
    if first.prev_hash != second.prev_hash:
        raise InvalidMessageError("fork: not the lowest one, as the records before it differ, too")
    return ForkProof(first, second)
