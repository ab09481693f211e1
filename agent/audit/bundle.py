"""The evidence bundle: one file with all that an epoch's settlement follows from.

Decides whether bytes are a whole bundle, not whether anything in it is true (`agent.audit.verifying`). Every byte is
untrusted: who verifies a bundle got it from somebody else.

1. A mark of 16 bytes, SHA-256 of the rest, then gzip around frames: 4 bytes of length (big-endian), a canonical array.
   The digest is checked before anything is unpacked: a file cut short or changed on its way is not looked into. It
   protects from accidents alone: whoever changes a bundle on purpose writes another digest.
2. The first frame names network, pool, epoch and the three blocks that the chain's word is taken from. The others
   follow in the order of `KINDS`, each a kind and its values; what a settlement cannot do without stands once.
3. Bounds: the file, all that it unpacks to, each frame. The same parts give the same bytes.

Source: `gossip.codec` for canonical arrays; RFC 1952.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from agent.errors import AgentError, OperationError
from agent.files import write_durably
from contracts.chain_kept import BLOCK_ID_BYTES, KeptAccount, KeptHeader, KeptLink
from contracts.model import OPERATORS_MAX, Address, Signature
from gossip import codec
from gossip.epoch_events import Anchor
from gossip.errors import InvalidMessageError
from gossip.messages import OBSERVATION_BYTES_MAX, PROPOSAL_BYTES_MAX
from gossip.policy import POLICY_BYTES_MAX
from gossip.records import ATTACHMENT_BYTES_MAX, RECORD_BYTES_MAX, PoolId
from gossip.settlement import CHECKPOINT_BYTES_MAX

MARK = b"gpupool bundle 1"
TAG = "gpupool/bundle/1"
FILE_BYTES_MAX = 512 << 20
CONTENT_BYTES_MAX = 1 << 30
STATE_BYTES_MAX = 1 << 24
"""A liteserver's answer is no longer."""
PROOF_BYTES_MAX = 1 << 20
HEADER_BYTES_MAX = 64 * 1024
ROOT_BYTES_MAX = 16 * 1024
FRAME_BYTES_MAX = max(CHECKPOINT_BYTES_MAX, STATE_BYTES_MAX + 2 * PROOF_BYTES_MAX) + 64 * 1024
LENGTH_BYTES = 4
DIGEST_BYTES = 32

KINDS = {
    "block": 1 << 16,
    "link": 1 << 16,
    "account": 16,
    "policy": 1,
    "root": 1,
    "base": 1,
    "settled": 1,
    "proposal": 1,
    "observation": OPERATORS_MAX,
    "signature": OPERATORS_MAX,
    "record": 1 << 22,
    "attachment": 1 << 17,
    "denied": 1 << 16,
}
"""The parts in their order, and how many of a kind there are at most: small ones take more memory than bytes."""


_T = TypeVar("_T")


class InvalidBundleError(AgentError):
    """The file is no whole bundle: get it again from whoever exported it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainPart:
    """What the chain said: headers, links and accounts with their proofs, and which block is which (by number).

    `registry_seqno` is the first block that is not older than the epoch's finalization, `open_seqno` the last one
    before the epoch settled, `landed_seqno` the first one after.
    """

    registry_seqno: int
    open_seqno: int
    landed_seqno: int
    headers: tuple[KeptHeader, ...]
    links: tuple[KeptLink, ...]
    accounts: tuple[KeptAccount, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """The parts of a bundle, none of them verified; wire forms as `gossip` has them.

    `root` is the attestation's root certificate (DER); `base` the checkpoint before the epoch (None: the first one),
    `settled` the epoch's own; `signatures` are operators' over the certificate; `denied` are anchors that the chain
    said are none of its blocks.
    """

    pool: PoolId
    epoch: int
    chain: ChainPart
    policy: str
    root: bytes
    base: bytes | None
    settled: bytes
    proposal: bytes
    observations: tuple[bytes, ...]
    signatures: tuple[Signature, ...]
    records: tuple[bytes, ...]
    attachments: tuple[bytes, ...]
    denied: tuple[Anchor, ...] = ()


def write_bundle(path: Path, bundle: Bundle) -> int:
    """Write a bundle to `path`, whole and durable, or not at all; returns its length in bytes.

    Raises:
        OperationError: the file exists, cannot be written, or would be longer than a bundle may be.
    """
    require_vacant(path)
    content = encode_bundle(bundle)
    try:
        write_durably(path, content)
    except OSError as error:
        raise OperationError(f"{path}: cannot be written: {error.strerror}") from error
    return len(content)


def require_vacant(path: Path) -> None:
    """Raise `OperationError` if something stands at `path`."""
    if os.path.lexists(path):
        raise OperationError(f"{path}: exists already; name another --out")


def read_bundle(path: Path) -> Bundle:
    """Read a bundle. Raises as `read_bundle_digest` does."""
    return read_bundle_digest(path)[0]


def read_bundle_digest(path: Path) -> tuple[Bundle, bytes]:
    """Read a bundle, and SHA-256 of the file's bytes: of the very ones that it was read from.

    Raises:
        InvalidBundleError: it cannot be read, or is no whole bundle.
    """
    try:
        with path.open("rb") as raw:
            content = raw.read(len(MARK) + DIGEST_BYTES + FILE_BYTES_MAX + 1)
        return decode_bundle(io.BytesIO(content)), hashlib.sha256(content).digest()
    except OSError as error:
        raise InvalidBundleError(f"{path}: cannot be read: {error.strerror or error}") from error
    except InvalidBundleError as error:
        raise InvalidBundleError(f"{path}: {error}") from error


def encode_bundle(bundle: Bundle) -> bytes:
    """The file's content (rules 1 and 2).

    Raises:
        OperationError: it would be more than a bundle may be.
    """
    packed, length = io.BytesIO(), 0
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=6, mtime=0) as file:
        for values in _frames(bundle):
            frame = codec.encode(values)
            length += LENGTH_BYTES + len(frame)
            file.write(len(frame).to_bytes(LENGTH_BYTES, "big") + frame)
    rest = packed.getvalue()
    if length > CONTENT_BYTES_MAX or len(rest) > FILE_BYTES_MAX:
        raise OperationError(
            f"epoch {bundle.epoch} makes {length} bytes, {len(rest)} packed; a bundle has at most {CONTENT_BYTES_MAX}, "
            f"{FILE_BYTES_MAX} packed"
        )
    return MARK + hashlib.sha256(rest).digest() + rest


def decode_bundle(raw: BinaryIO) -> Bundle:
    """Read a bundle's content from a file that can be rewound.

    Raises:
        InvalidBundleError: it is no whole bundle.
        OSError: as the file raises it.
    """
    if raw.read(len(MARK)) != MARK:
        raise InvalidBundleError("no evidence bundle, or of another version")
    _require_digest(raw, raw.read(DIGEST_BYTES))
    raw.seek(len(MARK) + DIGEST_BYTES)
    try:
        with gzip.GzipFile(fileobj=raw, mode="rb") as file:
            return _read(_unpack(file))
    except (EOFError, zlib.error, gzip.BadGzipFile, InvalidMessageError) as error:
        raise InvalidBundleError(f"no evidence bundle: {error}") from error


def _require_digest(raw: BinaryIO, expected: bytes) -> None:
    digest, length = hashlib.sha256(), 0
    while chunk := raw.read(1 << 20):
        length += len(chunk)
        if length > FILE_BYTES_MAX:
            raise InvalidBundleError(f"longer than {FILE_BYTES_MAX} bytes")
        digest.update(chunk)
    if digest.digest() != expected:
        raise InvalidBundleError("cut short, or changed on its way: its digest is another")


def _unpack(file: gzip.GzipFile) -> Iterator[tuple[codec.Value, ...]]:
    """The frames in the file, each decoded."""
    left = CONTENT_BYTES_MAX
    while head := file.read(LENGTH_BYTES):
        length = int.from_bytes(head, "big")
        left -= LENGTH_BYTES + length
        if len(head) < LENGTH_BYTES or length > FRAME_BYTES_MAX or left < 0:
            raise InvalidMessageError("a part is longer than it may be")
        frame = file.read(length)
        if len(frame) != length:
            raise InvalidMessageError("it ends in the middle")
        yield codec.as_array(codec.decode(frame, bytes_max=FRAME_BYTES_MAX), "part", length_max=8)


def _frames(bundle: Bundle) -> Iterator[tuple[codec.Value, ...]]:
    chain = bundle.chain
    places = (chain.registry_seqno, chain.open_seqno, chain.landed_seqno)
    yield (TAG, bundle.pool.network, bundle.pool.account, bundle.epoch, places)
    for header in chain.headers:
        yield ("block", header.seqno, header.root_hash, header.file_hash, header.proof)
    for link in chain.links:
        yield ("link", link.source, link.target, link.proof, link.state_proof)
    for kept in chain.accounts:
        yield ("account", kept.seqno, kept.address.account, kept.shard, kept.shard_proof, kept.proof, kept.state)
    yield ("policy", bundle.policy)
    yield ("root", bundle.root)
    if bundle.base is not None:
        yield ("base", bundle.base)
    yield ("settled", bundle.settled)
    yield ("proposal", bundle.proposal)
    yield from (("observation", wire) for wire in bundle.observations)
    yield from (("signature", each.index, each.signature) for each in bundle.signatures)
    yield from (("record", wire) for wire in bundle.records)
    yield from (("attachment", body) for body in bundle.attachments)
    yield from (("denied", anchor.seqno, anchor.root_hash, anchor.time_s) for anchor in bundle.denied)


def _read(frames: Iterator[tuple[codec.Value, ...]]) -> Bundle:
    head = next(frames, None)
    if head is None or len(head) != 5 or head[0] != TAG:
        raise InvalidMessageError("it does not begin like one")
    places = [codec.as_uint(each, "seqno", 32) for each in codec.as_array(head[4], "blocks", 3)]
    order = tuple(KINDS)
    parts: dict[str, list[Sequence[codec.Value]]] = {kind: [] for kind in KINDS}
    last = 0
    for frame in frames:
        kind = frame[0] if frame else None
        if type(kind) is not str or kind not in order[last:]:
            raise InvalidMessageError("a part is unknown, or out of place")
        if len(parts[kind]) >= KINDS[kind]:
            raise InvalidMessageError(f"{kind}: more than {'one' if KINDS[kind] == 1 else KINDS[kind]}")
        last = order.index(kind)
        parts[kind].append(frame[1:])
    chain = ChainPart(
        registry_seqno=places[0],
        open_seqno=places[1],
        landed_seqno=places[2],
        headers=tuple(_header(values) for values in parts["block"]),
        links=tuple(_link(values) for values in parts["link"]),
        accounts=tuple(_account(values) for values in parts["account"]),
    )
    bases = _blobs(parts["base"], "base", CHECKPOINT_BYTES_MAX)
    if len(bases) > 1:
        raise InvalidMessageError("base: more than one")
    return Bundle(
        pool=PoolId(codec.as_int(head[1], "network"), codec.as_bytes(head[2], "pool", 32)),
        epoch=codec.as_uint(head[3], "epoch", 32),
        chain=chain,
        policy=codec.as_text(_only(_values(parts["policy"], 1), "policy")[0], "policy", length_max=POLICY_BYTES_MAX),
        root=_only(_blobs(parts["root"], "root", ROOT_BYTES_MAX), "root"),
        base=bases[0] if bases else None,
        settled=_only(_blobs(parts["settled"], "settled", CHECKPOINT_BYTES_MAX), "settled"),
        proposal=_only(_blobs(parts["proposal"], "proposal", PROPOSAL_BYTES_MAX), "proposal"),
        observations=_blobs(parts["observation"], "observation", OBSERVATION_BYTES_MAX),
        signatures=tuple(_signature(values) for values in parts["signature"]),
        records=_blobs(parts["record"], "record", RECORD_BYTES_MAX),
        attachments=_blobs(parts["attachment"], "attachment", ATTACHMENT_BYTES_MAX),
        denied=tuple(_anchor(values) for values in parts["denied"]),
    )


def _values(parts: Sequence[Sequence[codec.Value]], count: int) -> tuple[tuple[codec.Value, ...], ...]:
    return tuple(codec.as_array(tuple(values), "part", count) for values in parts)


def _blobs(parts: Sequence[Sequence[codec.Value]], kind: str, bytes_max: int) -> tuple[bytes, ...]:
    return tuple(codec.as_bytes(value, kind, length_max=bytes_max) for (value,) in _values(parts, 1))


def _only(values: Sequence[_T], kind: str) -> _T:
    if len(values) != 1:
        raise InvalidMessageError(f"{kind}: {'missing' if not values else 'more than one'}")
    return values[0]


def _header(values: Sequence[codec.Value]) -> KeptHeader:
    ((seqno, root_hash, file_hash, proof),) = _values([values], 4)
    return KeptHeader(
        seqno=codec.as_uint(seqno, "seqno", 31),
        root_hash=codec.as_bytes(root_hash, "root_hash", 32),
        file_hash=codec.as_bytes(file_hash, "file_hash", 32),
        proof=codec.as_bytes(proof, "header", length_max=HEADER_BYTES_MAX),
    )


def _link(values: Sequence[codec.Value]) -> KeptLink:
    ((source, target, proof, state_proof),) = _values([values], 4)
    return KeptLink(
        source=codec.as_uint(source, "source", 31),
        target=codec.as_uint(target, "target", 31),
        proof=codec.as_bytes(proof, "header", length_max=HEADER_BYTES_MAX),
        state_proof=codec.as_bytes(state_proof, "state_proof", length_max=HEADER_BYTES_MAX),
    )


def _account(values: Sequence[codec.Value]) -> KeptAccount:
    ((seqno, account, shard, shard_proof, proof, state),) = _values([values], 6)
    return KeptAccount(
        address=Address(0, codec.as_bytes(account, "account", 32)),
        seqno=codec.as_uint(seqno, "seqno", 31),
        shard=codec.as_bytes(shard, "shard", BLOCK_ID_BYTES),
        shard_proof=codec.as_bytes(shard_proof, "shard_proof", length_max=PROOF_BYTES_MAX),
        proof=codec.as_bytes(proof, "proof", length_max=PROOF_BYTES_MAX),
        state=codec.as_bytes(state, "state", length_max=STATE_BYTES_MAX),
    )


def _signature(values: Sequence[codec.Value]) -> Signature:
    ((index, signature),) = _values([values], 2)
    return Signature(index=codec.as_uint(index, "index", 16), signature=codec.as_bytes(signature, "signature", 64))


def _anchor(values: Sequence[codec.Value]) -> Anchor:
    ((seqno, root_hash, time_s),) = _values([values], 3)
    return Anchor(
        seqno=codec.as_uint(seqno, "seqno", 32),
        root_hash=codec.as_bytes(root_hash, "root_hash", 32),
        time_s=codec.as_uint(time_s, "time_s", 32),
    )
