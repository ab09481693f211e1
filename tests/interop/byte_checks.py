"""Whether two implementations mean the same bytes: canonical msgpack and the records, without any network."""

from __future__ import annotations

import random
from typing import Protocol

from pool_fixture import START_S, Author, key

from gossip import codec
from gossip.errors import InvalidMessageError
from gossip.records import CloseBody, ReceiptBody
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
    author = Author(0)
    author.prove()
    author.work(tokens=1 << 40, gpu_seconds=1, energy_mj=1 << 60, latency_ms=None, provenance="ä" * 128)
    author.append(
        ReceiptBody(
            signer=key(1).public,
            job_id=b"job",
            participant=key(0).public,
            time_s=START_S,
            tokens=7,
            signature=bytes(64),
        )
    )
    author.append(CloseBody())
    for record in author.records:
        digest, again = await scene.js.do("record", wire=record.wire.hex())
        assert digest == record.hash.hex()
        assert again == record.wire.hex()
    return "all four kinds: same hash, same bytes when encoded again"


async def example(scene: HasForeign) -> str:
    made = wire_page.record()
    assert made.wire.hex() in wire_page.DOCUMENT.read_text().replace("\n", "")
    assert await scene.js.do("record", wire=made.wire.hex()) == [made.hash.hex(), made.wire.hex()]
    return "the record of docs/wire.md"
