"""Writes the table of wire forms of `docs/protocol.md` from samples that the code makes.

Each field of a sample is held against the form that `FIELDS` gives it, so a field that comes or goes stops the writer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache

from pool_fixture import POOL, START_S, Author, evidence, key, policy

from gossip import codec, sync
from gossip.addresses import make_address_record
from gossip.epoch_events import ObjectId
from gossip.hello import Hello, Sighting, encode_hello, make_instance
from gossip.log_chain import GENESIS, Head, RecordRange
from gossip.messages import ListedObservation, ObservedLog, make_attest, make_observation, make_proposal
from gossip.receipts import make_receipt
from gossip.records import ReceiptBody, receipt_text
from gossip.settlement import Payments, encode_checkpoint
from gossip.wire import RECORD, encode_gossip
from tests.gossip.tools import close_drawn

Form = Callable[[object], bool]
FORMS: Mapping[str, Form] = {
    "text": lambda value: type(value) is str,
    "int": lambda value: type(value) is int,
    "uint": lambda value: type(value) is int and value >= 0,
    "bool": lambda value: type(value) is bool,
    "bytes": lambda value: type(value) is bytes,
    "16 bytes": lambda value: type(value) is bytes and len(value) == 16,
    "32 bytes": lambda value: type(value) is bytes and len(value) == 32,
    "64 bytes": lambda value: type(value) is bytes and len(value) == 64,
    "nil": lambda value: value is None,
    "array": lambda value: type(value) is tuple,
}
FIELDS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "envelope": (("signed", "bytes"), ("signature", "64 bytes")),
    "record": (
        ("tag", "text"),
        ("network", "int"),
        ("pool", "32 bytes"),
        ("node_key", "32 bytes"),
        ("seq", "uint"),
        ("prev_hash", "32 bytes"),
        ("kind", "uint"),
        ("body", "array"),
    ),
    "evidence body": (("quote", "bytes"), ("attached", "array"), ("anchor", "array")),
    "attached": (
        ("collateral_digest", "32 bytes"),
        ("gpu_digest", "32 bytes/nil"),
        ("handshake_digest", "32 bytes/nil"),
    ),
    "anchor": (("seqno", "uint"), ("root_hash", "32 bytes"), ("time_s", "uint")),
    "work body": (("start_s", "uint"), ("end_s", "uint"), ("readings", "array"), ("evidence", "32 bytes/nil")),
    "source reading": (
        ("source", "uint"),
        ("instance", "uint"),
        ("provenance", "text"),
        ("counters", "array"),
        ("latency_ms", "array/nil"),
        ("gap_s", "uint"),
    ),
    "counter": (("unit", "uint"), ("amount", "uint")),
    "receipt body": (("receipts", "array"),),
    "receipt": (
        ("signer", "32 bytes"),
        ("job_id", "bytes"),
        ("time_s", "uint"),
        ("tokens", "uint"),
        ("signature", "64 bytes"),
    ),
    "receipt, signed": (
        ("tag", "text"),
        ("network", "int"),
        ("pool", "32 bytes"),
        ("node_key", "32 bytes"),
        ("signer", "32 bytes"),
        ("job_id", "bytes"),
        ("time_s", "uint"),
        ("tokens", "uint"),
    ),
    "observation": (
        ("tag", "text"),
        ("network", "int"),
        ("pool", "32 bytes"),
        ("operator", "32 bytes"),
        ("epoch", "uint"),
        ("set_id", "uint"),
        ("policy_hash", "32 bytes"),
        ("base", "32 bytes"),
        ("logs", "array"),
        ("forks", "array"),
    ),
    "observed log": (
        ("node_key", "32 bytes"),
        ("seq", "uint"),
        ("hash", "32 bytes"),
        ("witnessed_s", "uint"),
        ("worker_tokens", "uint/nil"),
    ),
    "proposal": (
        ("tag", "text"),
        ("network", "int"),
        ("pool", "32 bytes"),
        ("leader", "32 bytes"),
        ("epoch", "uint"),
        ("view", "uint"),
        ("set_id", "uint"),
        ("listed", "array"),
        ("cert_hash", "32 bytes"),
    ),
    "listed": (("index", "uint"), ("digest", "32 bytes")),
    "attest": (
        ("tag", "text"),
        ("network", "int"),
        ("pool", "32 bytes"),
        ("operator", "32 bytes"),
        ("epoch", "uint"),
        ("cert_hash", "32 bytes"),
        ("cert_signature", "64 bytes"),
    ),
    "gossip": (("kind", "text"), ("wire", "bytes")),
    "request": (("tag", "text"), ("body", "array")),
    "watermark": (("node_key", "32 bytes"), ("seq", "uint"), ("hash", "32 bytes")),
    "range": (("node_key", "32 bytes"), ("first", "uint"), ("last", "uint")),
    "object": (("kind", "text"), ("id", "32 bytes")),
    "answer about a close": (("observations", "array"), ("proposals", "array"), ("attests", "array")),
    "address record": (
        ("tag", "text"),
        ("network", "int"),
        ("pool", "32 bytes"),
        ("node_key", "32 bytes"),
        ("issued_s", "uint"),
        ("addresses", "array"),
    ),
    "addresses asked for": (("first", "uint"), ("digests", "bytes"), ("own", "bytes/nil")),
    "answer about addresses": (("next", "uint"), ("records", "array")),
    "hello": (
        ("tag", "text"),
        ("protocols", "array"),
        ("tallies", "array"),
        ("agent", "text"),
        ("policies", "array"),
        ("instance", "bytes"),
        ("sightings", "array"),
    ),
    "instance": (
        ("tag", "text"),
        ("network", "int"),
        ("pool", "32 bytes"),
        ("node_key", "32 bytes"),
        ("id", "16 bytes"),
        ("started_s", "uint"),
        ("said_s", "uint"),
        ("others", "array"),
    ),
    "sighting": (("instance", "bytes"), ("ago_s", "uint"), ("address", "text/nil")),
    "checkpoint": (("tag", "text"), ("payload", "bytes"), ("leaves", "array"), ("readings", "array")),
    "leaf": (
        ("participant", "32 bytes"),
        ("earned_nanoton", "16 bytes"),
        ("score", "16 bytes"),
        ("tokens", "uint"),
        ("tasks", "uint"),
        ("uptime_s", "uint"),
        ("quality", "uint"),
        ("reputation", "uint"),
        ("flags", "uint"),
    ),
    "reading": (
        ("node_key", "32 bytes"),
        ("seq", "uint"),
        ("hash", "32 bytes"),
        ("work_end_s", "uint"),
        ("witnessed_s", "uint"),
        ("credited_s", "uint"),
        ("payments", "array/nil"),
        ("dead", "bool"),
        ("evidence", "array"),
    ),
    "payments": (
        ("metered_tokens", "uint"),
        ("paid_tokens", "uint"),
        ("worker", "32 bytes/nil"),
        ("worker_tokens", "uint"),
    ),
    "evidence window": (
        ("record", "32 bytes"),
        ("from_s", "uint"),
        ("until_s", "uint"),
        ("machine", "32 bytes"),
        ("gpus", "array"),
        ("tokens_per_s", "uint"),
    ),
}


@cache
def samples() -> Mapping[str, codec.Value]:
    """One value of every wire form, made by the code itself and decoded."""
    author = Author(0)
    proof, work = _signed(author.append(evidence()).wire), _signed(author.work().wire)
    claim = make_receipt(key(1), POOL, key(0).public, job_id=b"job", time_s=START_S, tokens=1)
    claims = _signed(author.append(ReceiptBody((claim,))).wire)
    log = ObservedLog(head=GENESIS, witnessed_s=0, worker_tokens=0)
    observed = make_observation(
        key(0), POOL, epoch=1, set_id=1, policy_hash=policy().hash, base=bytes(32), logs={key(0).public: log}, forks=()
    )
    listed = (ListedObservation(index=0, digest=observed.digest),)
    proposed = make_proposal(key(0), POOL, epoch=1, view=0, set_id=1, listed=listed, cert_hash=bytes(32))
    said, stated = _signed(observed.wire), _signed(proposed.wire)
    heads = _decoded(sync.encode_heads({key(0).public: Head(1, bytes(32))}))
    ranges = _decoded(sync.encode_request(sync.RecordsRequest((RecordRange(key(0).public, 1, 2),))))
    wanted = _decoded(sync.encode_request(sync.ObjectRequest(ObjectId(kind="checkpoint", id=bytes(32)))))
    told = make_address_record(key(0), POOL, issued_s=0, addresses=["/ip4/203.0.113.7/tcp/4001"])
    digests = bytes(sync.ADDRESS_RANGES * sync.RANGE_DIGEST_BYTES)
    asked = _decoded(sync.encode_request(sync.AddressesRequest(first=0, digests=digests, own=told)))
    hello, instance = _hello()
    outcome = close_drawn.said_of_one_epoch().outcome
    checkpoint = _decoded(encode_checkpoint(outcome))
    paid = {k: replace(r, payments=Payments(paid_tokens=1)) for k, r in outcome.readings.items()}
    return {
        "envelope": _decoded(observed.wire),
        "record": work,
        "evidence body": _at(proof, 7),
        "attached": _at(proof, 7, 1),
        "anchor": _at(proof, 7, 2),
        "work body": _at(work, 7),
        "source reading": _at(work, 7, 2, 0),
        "counter": _at(work, 7, 2, 0, 3, 0),
        "receipt body": _at(claims, 7),
        "receipt": _at(claims, 7, 0, 0),
        "receipt, signed": _decoded(receipt_text(POOL, key(0).public, claim)),
        "observation": said,
        "observed log": _at(said, 8, 0),
        "proposal": stated,
        "listed": _at(stated, 7, 0),
        "attest": _signed(make_attest(key(0), POOL, epoch=1, cert_hash=bytes(32)).wire),
        "gossip": _decoded(encode_gossip(RECORD, observed.wire)),
        "request": ranges,
        "watermark": _at(heads, 0),
        "range": _at(ranges, 1, 1, 0),
        "object": _at(wanted, 1, 1),
        "answer about a close": _decoded(sync.encode_close(sync.CloseState())),
        "address record": _signed(told),
        "addresses asked for": _at(asked, 1, 1),
        "answer about addresses": _decoded(sync.encode_page(sync.AddressPage(next=1, wires=(told,)))),
        "hello": hello,
        "instance": instance,
        "sighting": _at(hello, 6, 0),
        "checkpoint": checkpoint,
        "leaf": _at(checkpoint, 2, 0),
        "reading": _at(checkpoint, 3, 0),
        "payments": _at(_decoded(encode_checkpoint(replace(outcome, readings=paid))), 3, 0, 6),
        "evidence window": _at(checkpoint, 3, 0, 8, 0),
    }


def _hello() -> tuple[codec.Value, codec.Value]:
    """A hello, and the instance in it."""
    instance = make_instance(key(0), POOL, instance=bytes(16), started_s=START_S, said_s=START_S)
    seen = (Sighting(instance=instance, ago_s=1, address="203.0.113.7:4001"),)
    made = Hello(protocols=(1,), tallies=(1,), agent="a", policies=(), instance=instance, sightings=seen)
    return _decoded(encode_hello(made)), _signed(instance.wire)


def _decoded(data: bytes) -> codec.Value:
    return codec.decode(data, bytes_max=1 << 20)


def _signed(wire: bytes) -> codec.Value:
    return _decoded(codec.open_envelope(wire, bytes_max=1 << 20)[0])


def _at(value: codec.Value, *path: int) -> codec.Value:
    for index in path:
        value = codec.as_array(value, "sample")[index]
    return value


def wire() -> str:
    rows = ["| form | fields, in order |", "|---|---|"]
    for name, named in FIELDS.items():
        values = codec.as_array(samples()[name], name, len(named))
        for value, (field, form) in zip(values, named, strict=True):
            if not any(FORMS[each](value) for each in form.split("/")):
                raise AssertionError(f"{name}.{field} is no {form}")
        rows.append(f"| {name} | {', '.join(f'`{field}` {form}' for field, form in named)} |")
    return "\n".join(rows) + "\n"
