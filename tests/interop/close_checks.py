"""Whether an epoch closes and settles with the messages of both."""

from __future__ import annotations

from typing import TypeVar

import trio
from pool_fixture import participant, policy

from gossip.epoch_events import Message
from gossip.messages import Attest, Observation, Proposal
from gossip.wire import kind_of
from tests.interop.pool import WITNESSED_S, Member
from tests.interop.scene import OURS, Scene, eventually

_Kind = TypeVar("_Kind", Observation, Proposal, Attest)


async def its_observation(scene: Scene) -> str:
    for member in scene.members:  # everybody holds what was made quietly
        for other in scene.members:
            if other is not member:
                await member.puller.sync(other.node.key.public)
    await scene.js.do("sync", peer=scene.peer)
    await scene.epoch.begin()
    await _observes(scene, witnessed_s=WITNESSED_S)
    await _observes(scene, witnessed_s=WITNESSED_S + 1, notice=True)
    digests = {m.digest.hex() for m in _held(scene.members[0], Observation)}

    async def received() -> bool:
        return digests <= set((await scene.js.do("state"))["observations"])

    await eventually(received)
    for message in _held(scene.members[0], Observation):
        again = await scene.js.do("message", kind="observation", wire=message.wire.hex())
        assert again == [message.digest.hex(), message.wire.hex()]
        served = await scene.js.do("object", peer=scene.peer, kind="observation", id=message.digest.hex())
        assert bytes.fromhex(served) == message.wire
    return f"its two accepted by all, one after a notice; it verified {len(digests)}, and fetched each by its digest"


async def _observes(scene: Scene, **how: object) -> None:
    """The other side makes an observation, and all of ours hold it."""
    of = {"epoch": 1, "set_id": 1, "policy_hash": policy().hash.hex(), "base": bytes(32).hex()}
    digest = await scene.js.do("observe", **of, **how)

    async def held() -> bool:
        return all(digest in {m.digest.hex() for m in _held(member, Observation)} for member in scene.members)

    await eventually(held)


def _held(member: Member, kind: type[_Kind]) -> list[_Kind]:
    return [m for m in member.node.machine.messages(1) if isinstance(m, kind)]


async def it_votes(scene: Scene) -> str:
    votes: list[tuple[str, str]] = []
    for _ in range(60):  # until a view that one of our nodes leads has come
        await scene.epoch.move(5)
        await trio.sleep(0.1)
        votes = [(operator, cert_hash) for operator, cert_hash in (await scene.js.do("state"))["attests"]]
        if len(votes) == OURS:
            break
    assert len(votes) == OURS, f"it holds {len(votes)} votes"
    (cert_hash,) = {cert_hash for _, cert_hash in votes}
    proposals = (await scene.js.do("state"))["proposals"]
    held: list[Message] = [*_held(scene.members[0], Proposal), *_held(scene.members[0], Attest)]
    for message in held:
        _, again = await scene.js.do("message", kind=kind_of(message), wire=message.wire.hex())
        assert again == message.wire.hex()
    assert scene.epoch.chain.landed.epoch == 0, "it settled without the vote of the other side"
    await scene.js.do("attest", epoch=1, cert_hash=cert_hash)
    return f"it verified {len(proposals)} proposal and {OURS} votes, and adds its own, without which there is no quorum"


async def close_over_streams(scene: Scene) -> str:
    counts = await scene.js.do("close", peer=scene.peer, epoch=1, all=True)
    held = scene.members[0]
    assert len(counts["observations"]) == len(_held(held, Observation)) == OURS + 2
    assert counts["proposals"] == len(_held(held, Proposal)) > 0
    for member in scene.members:
        await member.puller.pull_close(scene.js.node_key)
        assert len(_held(member, Attest)) == OURS + 1
    nothing = {"observations": [], "proposals": 0, "attests": 0}
    assert await scene.js.do("close", peer=scene.peer, epoch=1) == nothing, "it names what it holds"
    return "each side took over the other's messages; what the asker holds is not sent"


async def settles(scene: Scene) -> str:
    for _ in range(30):
        if scene.epoch.chain.landed.epoch == 1 and all(m.node.machine.base.epoch == 1 for m in scene.members):
            break
        await scene.epoch.move(5)
        await trio.sleep(0.05)
    assert scene.epoch.chain.landed.epoch == 1, "the epoch did not settle"
    landed = scene.members[0].store.last_landed()
    assert landed is not None
    reading = landed.readings[scene.js.node_key]
    assert reading.head.seq == 8, reading
    (own,) = (leaf.earned_nanoton for leaf in landed.leaves if leaf.participant == participant(OURS).address)
    assert own > 0
    checkpoint = await scene.js.do("object", peer=scene.peer, kind="checkpoint", id=landed.payload_hash.hex())
    assert checkpoint is not None
    return f"epoch 1 counts its log to record {reading.head.seq} and pays it {own / 1e9:.2f}; it fetched the checkpoint"
