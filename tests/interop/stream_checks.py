"""Whether the two ask each other over direct streams, and survive what is malformed."""

from __future__ import annotations

import os

from pool_fixture import POOL, START_S, work

from gossip import codec, sync
from gossip.addresses import make_address_record
from gossip.epoch_events import ObjectId
from gossip.errors import PeerUnavailableError
from gossip.sync import NONCE_BYTES, AddressesRequest, ObjectRequest, PingRequest, WatermarksRequest
from tests.interop.foreign import ForeignError
from tests.interop.pool import Member
from tests.interop.scene import OURS, Scene, eventually


async def it_asks(scene: Scene) -> str:
    node = scene.members[0].node
    heads = await scene.js.do("watermarks", peer=scene.peer, all=True)
    assert [(key, seq, head) for key, seq, head in heads] == [
        (k.hex(), node.logs[k].head.seq, node.logs[k].head.hash.hex()) for k in sorted(node.logs)
    ]
    (evidence,) = node.logs[node.key.public].held(1)
    for start_s in range(START_S + 10, START_S + 60, 10):
        await make_quietly(scene.members[0], work(start_s, start_s + 10, 1000, evidence.hash))
    assert await scene.js.do("sync", peer=scene.peer) == 5
    assert await scene.js.do("watermarks", peer=scene.peer) == []
    unknown = await scene.js.do("object", peer=scene.peer, kind="attachment", id="ff" * 32)
    collateral = await scene.js.do("object", peer=scene.peer, kind="attachment", id="00" * 32)
    assert unknown is None
    assert bytes.fromhex(collateral) == scene.members[0].store.objects[bytes(32)]
    return "watermarks until nothing differs, 5 records that were not gossiped, an object, an unknown one"


async def make_quietly(member: Member, body: object) -> None:
    """Append to the own log what the topic never hears of."""
    publish, member.node._publish = member.node._publish, lambda data: None  # type: ignore[method-assign]
    await member.node.append(body)  # type: ignore[arg-type]
    member.node._publish = publish  # type: ignore[method-assign]


async def we_ask(scene: Scene) -> str:
    await scene.js.do("work", windows=4, start_s=START_S + 30, quiet=True)
    for member in scene.members:
        await member.puller.sync(scene.js.node_key)
    assert scene.js_heads() == [8] * OURS
    answer = await scene.members[0].transport.request(
        scene.js.node_key, sync.encode_request(ObjectRequest(ObjectId(kind="attachment", id=bytes([255]) * 32)))
    )
    assert sync.parse_object(answer) is None
    return "watermarks and 4 records that were not gossiped, an unknown object"


async def probes(scene: Scene) -> str:
    first = scene.members[0]
    request = PingRequest(os.urandom(NONCE_BYTES))
    sync.require_pong(await first.transport.request(scene.js.node_key, sync.encode_request(request)), request.nonce)
    assert await scene.js.do("probe", peer=scene.peer, nonce=request.nonce.hex()) == request.nonce.hex()
    return "both ways"


async def addresses(scene: Scene) -> str:
    first, second, third = (member.node for member in scene.members)
    for node, port in ((first, 1), (second, 2), (third, 3)):
        record = make_address_record(node.key, POOL, issued_s=node.now_s(), addresses=[f"/ip4/127.0.0.1/tcp/{port}"])
        node.addresses.keep_own(record)
        if node is not third:
            node.publish_address(record)  # the third one's has to be asked for
    own = f"/dns4/{'a' * 63}.example/tcp/4001"
    await scene.js.do("announce", issued_s=first.now_s(), addresses=[own])

    async def heard() -> bool:
        _, known = await scene.js.do("find", peer=scene.peer)
        return len(known) == OURS and first.addresses.addresses(scene.js.node_key) == (own,)

    await eventually(heard)
    assert await scene.js.do("find", peer=third.key.public.hex()) == [1, sorted(k.hex() for k in _known(scene))]
    request = AddressesRequest(first=0, digests=first.addresses.digests(), own=None)
    answer = await scene.members[0].transport.request(scene.js.node_key, sync.encode_request(request))
    page = sync.parse_page(answer, request)
    assert first.addresses.take(page.wires[0], registered=first.logs, now_s=first.now_s())
    assert len(page.wires) == 1
    assert third.addresses.addresses(scene.js.node_key) == (own,), "it names itself when it asks"
    return "by gossip and by asking; only ranges that differ are sent"


def _known(scene: Scene) -> list[bytes]:
    return [scene.js.node_key, *(member.node.key.public for member in scene.members)]


async def malformed_requests(scene: Scene) -> str:
    well = sync.encode_request(WatermarksRequest(bytes(8)))
    bad = {
        "no msgpack": b"\xc1",
        "nothing": b"",
        "another version": codec.encode(("gpupool/sync/0", ("close", 1))),
        "an unknown name": codec.encode((sync.TAG, ("gift", 1))),
        "too long": bytes(sync.REQUEST_BYTES_MAX + 1),
    }
    for what, data in bad.items():
        try:
            await scene.js.do("send", peer=scene.peer, request=data.hex())
        except ForeignError:
            continue
        raise AssertionError(f"{what}: answered")
    assert await scene.js.do("send", peer=scene.peer, request=well.hex())
    try:
        await scene.members[0].transport.request(scene.js.node_key, bad["an unknown name"])
    except PeerUnavailableError:
        assert await scene.members[0].transport.request(scene.js.node_key, well)
        return f"{len(bad)} reset by us, 1 by it; the next request is answered"
    raise AssertionError("it answered a request that it does not know")
