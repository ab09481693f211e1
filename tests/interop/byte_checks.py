"""Whether two implementations mean the same bytes: canonical msgpack and the records, without any network."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Protocol

from pool_fixture import POOL, START_S, Author, key, reading

from gossip import codec
from gossip.errors import InvalidMessageError
from gossip.receipts import make_receipt, require_receipt
from gossip.records import RECORD_BYTES_MAX, CloseBody, Kind, Receipt, ReceiptBody, Source, Unit, WorkBody
from tests.gossip.tools import wire_page
from tests.interop.foreign import Foreign, ForeignError

VALUES = 400


class HasForeign(Protocol):
    """The part of a scene that these checks need."""

    js: Foreign


async def canonical_values(scene: HasForeign) -> str:
    drawn = random.Random(1)
    for _ in range(VALUES):
        data = codec.encode(_value(drawn, 4))
        assert await scene.js.do("canonical", data=data.hex()) == data.hex(), data.hex()
    return f"{VALUES} values encode to the same bytes"


def _value(drawn: random.Random, depth: int) -> codec.Value:
    match drawn.randrange(7 if depth else 6):
        case 0:
            return drawn.choice((None, True, False))
        case 1:
            return drawn.choice((-1, 1)) * drawn.getrandbits(drawn.randrange(63))
        case 2:
            return drawn.choice((0, 127, 128, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**63 - 1, -32, -33, -129))
        case 3:
            return drawn.randbytes(drawn.choice((0, 1, 31, 255, 256, 70_000)))
        case 4:
            return "aä漢😀\ufeff"[: drawn.randrange(6)] * drawn.choice((0, 1, 7, 40))
        case 5:
            return (None,) * drawn.choice((0, 15, 16, 300))
        case _:
            return tuple(_value(drawn, depth - 1) for _ in range(drawn.randrange(5)))


REFUSED = {
    "an integer in a longer form": "cc05",
    "a negative one in a longer form": "d0ff",
    "text in a longer form": "d90161",
    "bytes in a longer form": "c5000100",
    "an array in a longer form": "dc0001c0",
    "a map": "80",
    "a float": "ca00000000",
    "an extension": "d40000",
    "text that is not UTF-8": "a1ff",
    "bytes after the value": "c0c0",
    "an end too early": "c403ff",
    "nine arrays deep": "91" * 9 + "c0",
    "nothing": "",
}


async def not_canonical(scene: HasForeign) -> str:
    for what, data in REFUSED.items():
        assert _refused_here(bytes.fromhex(data)), f"{what} is accepted here"
        assert await _refused_there(scene.js, data), f"{what} is accepted there"
    return f"{len(REFUSED)} forms are refused by both"


def _refused_here(data: bytes) -> bool:
    try:
        codec.decode(data, bytes_max=100)
    except InvalidMessageError:
        return True
    return False


async def _refused_there(js: Foreign, data: str) -> bool:
    try:
        await js.do("canonical", data=data)
    except ForeignError as error:
        return "InvalidMessage" in str(error)
    return False


async def every_record(scene: HasForeign) -> str:
    author = _author()
    for record in author.records:
        digest, again = await scene.js.do("record", wire=record.wire.hex())
        assert digest == record.hash.hex()
        assert again == record.wire.hex()
    return "all four kinds: same hash, same bytes when encoded again"


def _author() -> Author:
    """A log with every kind of record, and every form of its fields."""
    author = Author(0)
    author.prove()
    author.work(tokens=1 << 40, latency_ms=None, provenance="ä" * 128)
    counted = (
        reading(7, instance=255),
        reading(source=Source.COCOON, counters=((Unit.ADJUSTED_TOKEN, (1 << 48) - 1),), gap_s=10),
        reading(source=Source.NVML, counters=(), latency_ms=None),
    )
    author.append(WorkBody(start_s=START_S + 10, end_s=START_S + 20, readings=counted, evidence=None))
    author.append(WorkBody(start_s=START_S + 20, end_s=START_S + 30, readings=(), evidence=bytes(32)))
    author.append(_receipts())
    author.append(CloseBody())
    return author


def _receipts() -> ReceiptBody:
    made = [
        make_receipt(key(signer), POOL, key(0).public, job_id=job_id, time_s=START_S, tokens=(1 << 48) - 1)
        for signer in (1, 2)
        for job_id in (b"", b"job", bytes(64))
    ]
    return ReceiptBody(tuple(sorted(made, key=lambda receipt: receipt.id)))


async def receipts(scene: HasForeign) -> str:
    signed = _receipts()
    assert await scene.js.do("receipts", wire=Author(0).append(signed).wire.hex()) == len(signed.receipts)
    for refused in (_falsely_receipted(0, tokens=1), _falsely_receipted(1)):
        try:
            await scene.js.do("record", wire=refused.hex())
        except ForeignError as error:
            assert "signature" in str(error)
        else:
            raise AssertionError("a record with a receipt that was not signed for its log is accepted there")
    claim = {"job_id": b"its job", "time_s": START_S, "tokens": 5}
    asked = {**claim, "job_id": b"its job".hex(), "node_key": key(0).public.hex()}
    signature = bytes.fromhex(await scene.js.do("receipt", **asked))
    require_receipt(POOL, key(0).public, Receipt(signer=scene.js.node_key, signature=signature, **claim))
    return f"{len(signed.receipts)} verified there, one of its own here, those for another log or other tokens refused"


def _falsely_receipted(i: int, **changes: int) -> bytes:
    """A record of the log of `i`, well signed but for its receipt, which was made for the log of 0."""
    claim = replace(_receipts().receipts[0], **changes)
    fields = codec.as_array(codec.decode(Author(i).append(CloseBody()).signed, bytes_max=RECORD_BYTES_MAX), "record", 8)
    body = ((claim.signer, claim.job_id, claim.time_s, claim.tokens, claim.signature),)
    return codec.seal(codec.encode((*fields[:6], Kind.RECEIPT.value, (body,))), key(i))


async def example(scene: HasForeign) -> str:
    made = wire_page.record()
    assert made.wire.hex() in wire_page.DOCUMENT.read_text().replace("\n", "")
    assert await scene.js.do("record", wire=made.wire.hex()) == [made.hash.hex(), made.wire.hex()]
    return "the record of docs/wire.md"
