"""Writes the limits and the example of `docs/wire.md` from the code.

    PYTHONPATH=tests/support python -m tests.gossip.tools.wire_page

A test compares the page, and `tests.interop` has the other implementation read the example.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from pool_fixture import POOL, START_S, key, work

from gossip import codec, records, sync
from gossip.hello import HELLO_BYTES_MAX
from gossip.log_chain import RecordRange
from gossip.records import Record, make_record
from gossip.sync import RecordsRequest
from gossip.wire import GOSSIP_BYTES_MAX, RECORD, encode_gossip, topic

DOCUMENT = Path(__file__).parents[3] / "docs" / "wire.md"
HEX_PER_LINE = 96

LIMITS = (
    ("a hello", HELLO_BYTES_MAX),
    ("a gossip message", GOSSIP_BYTES_MAX),
    ("a record", records.RECORD_BYTES_MAX),
    ("an attachment", records.ATTACHMENT_BYTES_MAX),
    ("a request", sync.REQUEST_BYTES_MAX),
    ("an answer", sync.RESPONSE_BYTES_MAX),
    ("records in one answer", sync.RECORDS_MAX),
    ("their bytes", sync.RECORDS_BYTES_MAX),
    ("ranges in one request", sync.RANGES_MAX),
    ("heads in one answer", sync.LOGS_MAX),
    ("`have` of a close", sync.HAVE_BYTES_MAX),
    ("messages of one kind in an answer about a close", sync.MESSAGES_MAX),
    ("bytes of an answer about a close", sync.CLOSE_BYTES_MAX),
    ("address records in one answer", sync.PAGE_RECORDS_MAX),
    ("their bytes, about", sync.PAGE_BYTES_MAX),
)
FIELDS = ("tag", "network", "account", "node_key", "seq", "prev_hash", "kind", "body")
BODY_FIELDS = ("start_s", "end_s", "readings", "evidence")
READING_FIELDS = ("source", "instance", "provenance", "counters", "latency_ms", "gap_s")


def record() -> Record:
    """The record of the example."""
    return make_record(key(0), POOL, 1, bytes(32), work(START_S, START_S + 60, 12_000, bytes(32)))


def limits() -> str:
    rows = "".join(f"| {what} | {limit:,} |\n" for what, limit in LIMITS)
    return "| limit (bytes, or how many) | |\n|---|---|\n" + rows


def example() -> str:
    """The record, field by field; what is made of it; and how a peer asks for it."""
    made = record()
    gossiped = encode_gossip(RECORD, made.wire)
    asked = sync.encode_request(RecordsRequest((RecordRange(made.node_key, 1, 1),)))
    answered = sync.encode_records([made.wire])
    parts = (
        ("topic", topic(POOL)),
        ("node_key", made.node_key.hex()),
        ("signed, field by field", "\n".join(_fields(made.signed))),
        (f"signed, {len(made.signed)} bytes", _folded(made.signed)),
        ("hash: SHA-256 of signed", made.hash.hex()),
        ("signature", _folded(made.signature)),
        (f"wire: the envelope, {len(made.wire)} bytes", _folded(made.wire)),
        (f'gossip message: `["record", wire]`, {len(gossiped)} bytes', _folded(gossiped)),
        ("request for it, as a frame", _folded(_frame(asked))),
        ("answer, as a frame", _folded(_frame(answered))),
    )
    return "".join(f"{name}:\n\n```\n{text}\n```\n\n" for name, text in parts)


def _fields(signed: bytes) -> Iterator[str]:
    items = codec.as_array(codec.decode(signed, bytes_max=len(signed)), "record", len(FIELDS))
    yield f"{signed[:1].hex()}  array of {len(items)}"
    for name, item in zip(FIELDS, items, strict=True):
        if name != "body":
            yield f"{codec.encode(item).hex()}  {name}"
            continue
        body = codec.as_array(item, "body", len(BODY_FIELDS))
        yield f"{codec.encode(body)[:1].hex()}  body: array of {len(body)}"
        for field, value in zip(BODY_FIELDS, body, strict=True):
            if field != "readings":
                yield f"{codec.encode(value).hex()}  {field}"
                continue
            (reading,) = codec.as_array(value, "readings", 1)
            yield f"{codec.encode(value)[:1].hex()}  readings: array of 1"
            yield f"{codec.encode(reading)[:1].hex()}  reading: array of {len(READING_FIELDS)}"
            parts = codec.as_array(reading, "reading", len(READING_FIELDS))
            yield from (f"{codec.encode(part).hex()}  {of}" for of, part in zip(READING_FIELDS, parts, strict=True))


def _frame(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _folded(data: bytes) -> str:
    text = data.hex()
    lines: Sequence[str] = [text[at : at + HEX_PER_LINE] for at in range(0, len(text), HEX_PER_LINE)]
    return "\n".join(lines)


def documented(text: str) -> str:
    """`text` with each block between its markers written anew."""
    for name, write in (("limits", limits), ("example", example)):
        pattern = re.compile(rf"(<!-- written:{name} -->\n).*?(<!-- /written:{name} -->)", re.DOTALL)
        text, count = pattern.subn(lambda found, write=write: found[1] + write() + found[2], text)  # type: ignore[misc]
        if count != 1:
            raise AssertionError(f"docs/wire.md: {count} blocks {name}, expected one")
    return text


if __name__ == "__main__":
    DOCUMENT.write_text(documented(DOCUMENT.read_text()))
