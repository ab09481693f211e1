"""Whether the two connect, form one mesh, and verify and place what the other gossips."""

from __future__ import annotations

import os

from libp2p.custom_types import TProtocol
from pool_fixture import POOL, START_S, Author, key, work

from gossip import codec
from gossip.libp2p_patches.identity import peer_id_of
from gossip.records import CloseBody, make_record
from gossip.wire import RECORD, encode_gossip, topic
from tests.interop.foreign import open_foreign
from tests.interop.pool import introduce
from tests.interop.scene import OURS, N, Scene, eventually

LAZY = 4
"""The participant that takes part in no mesh."""
PING = TProtocol("/ipfs/ping/1.0.0")


async def connects(scene: Scene) -> str:
    first, *others = scene.members
    introduce(scene.members, {}, N)
    assert await scene.js.do("dial", address=first.transport.addresses[0]) == scene.peer
    introduce(scene.members, {scene.js.node_key: [scene.address]}, N)

    async def connected() -> bool:
        # With everybody: what is fetched below is fetched from whoever has it.
        return all(len(member.connected()) == OURS for member in scene.members)

    await eventually(connected)
    return f"it dialled one of us, {len(others)} dialled it; Noise proved all keys"


async def identify(scene: Scene) -> str:
    spoken = {"/gpupool/sync/1", "/meshsub/1.1.0", str(PING)}

    async def known() -> bool:
        return spoken <= set(await scene.js.do("protocols", peer=scene.peer))

    await eventually(known)
    return ", ".join(sorted(spoken))


async def pings(scene: Scene) -> str:
    rtt_ms = await scene.js.do("ping", peer=scene.peer)
    stream = await scene.members[0].transport._host.new_stream(peer_id_of(scene.js.node_key), [PING])
    sent = os.urandom(32)
    await stream.write(sent)
    assert await stream.read(32) == sent
    await stream.close()
    return f"both ways; it measures {rtt_ms} ms"


async def meshes(scene: Scene) -> str:
    async def grafted() -> bool:
        return bool(await scene.js.do("mesh") == OURS)

    await eventually(grafted)
    return f"{OURS} of our nodes are in its mesh"


async def our_records_arrive(scene: Scene) -> str:
    for member in scene.members:
        evidence = await member.node.append(Author(member.i).prove().body)
        await member.node.append(work(START_S, START_S + 10, 1000, evidence.hash))
    ours = [(m.node.key.public.hex(), 2, m.node.logs[m.node.key.public].head.hash.hex()) for m in scene.members]

    async def held() -> bool:
        heads = {tuple(head) for head in (await scene.js.do("state"))["heads"]}
        return set(ours) <= heads

    await eventually(held)
    counts = (await scene.js.do("state"))["gossip"]
    assert not counts["invalid"], counts
    return f"{counts['placed']} records, signatures and chain checked there"


async def its_records_arrive(scene: Scene) -> str:
    made = await scene.js.do("work", windows=3, start_s=START_S)
    log = scene.members[0].node.logs[scene.js.node_key]

    async def placed() -> bool:
        # Evidence waits for its attachment; what came behind it meanwhile comes by anti-entropy.
        for member in scene.members:
            await member.puller._guarded(scene.js.node_key, member.puller.sync)
        return scene.js_heads() == [4] * OURS

    await eventually(placed)
    assert log.head.hash.hex() == made[-1]
    state = await scene.js.do("state")
    assert state["served"].get("object", 0) >= 1, "nobody asked for the attachment"
    return "evidence and 3 windows placed by all; the attachment was asked of it"


async def bad_gossip(scene: Scene) -> str:
    node = scene.members[0].node
    before = node.drops.total()
    record = make_record(key(3), POOL, 5, bytes(32), CloseBody())
    forged = record.wire[:-1] + bytes([record.wire[-1] ^ 1])
    stranger = make_record(key(9), POOL, 1, bytes(32), CloseBody())
    bad = [b"\x80", b"", encode_gossip(RECORD, forged), encode_gossip(RECORD, stranger.wire), codec.encode(("x", b""))]
    for data in bad:
        await scene.js.do("gossip", data=data.hex())

    async def counted() -> bool:
        return node.drops.total() >= before + len(bad)

    await eventually(counted)
    assert scene.js.node_key in scene.members[0].connected()
    return f"{len(bad)} bad messages dropped and counted; still connected"


async def by_announcement_alone(scene: Scene) -> str:
    """A peer that is in nobody's mesh gets and gives messages by IHAVE and IWANT: both sides form the same ids."""
    outside: dict[str, object] = {
        "D": 0,
        "Dlo": 0,
        "Dhi": 0,
        "Dout": 0,
        "floodPublish": False,
        "allowPublishToZeroTopicPeers": True,
    }
    outside["scoreThresholds"] = {"publishThreshold": 1}  # nobody is good enough to be sent a message at once
    async with open_foreign(LAZY, [key(i).public for i in range(N)], outside) as lazy:
        # We dial: it would take whom it dialled itself into its mesh.
        introduce(scene.members, {scene.js.node_key: [scene.address], lazy.node_key: [await lazy.do("address")]}, N)
        routers = [member.transport._pubsub.router for member in scene.members]

        async def shut_out() -> bool:
            # It pruned us when we grafted it, and we keep out for a while.
            return all(peer_id_of(lazy.node_key) in router.back_off.get(topic(POOL), ()) for router in routers)

        await eventually(shut_out)
        assert await lazy.do("mesh") == 0
        await scene.members[0].node.append(work(START_S + 60, START_S + 70, 1000, bytes(32)))

        async def received() -> bool:
            return bool((await lazy.do("state"))["gossip"]["late"])  # its predecessors came before this peer

        await eventually(received)
        assert await lazy.do("gossip", data=encode_gossip(RECORD, _first_of(LAZY)).hex()) == 0, "it was sent directly"

        async def placed() -> bool:
            return any(member.node.logs[lazy.node_key].head.seq == 1 for member in scene.members)

        await eventually(placed)
    return "IHAVE and IWANT carry a record each way"


def _first_of(i: int) -> bytes:
    return make_record(key(i), POOL, 1, bytes(32), CloseBody()).wire
