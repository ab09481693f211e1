"""Probing: operators ask every participant for a sign of life, at moments that it cannot foresee.

Decides whom to probe when, and what an answer is worth. Untrusted: the answer.

1. In each bucket of `witness_bucket_s` every other registered participant has one moment, drawn anew and evenly
   over what is left of the bucket (but for its last `MARGIN_S`, in which a probe would come too late): nobody can
   be there for the probe alone, and no burst stands at its beginning.
2. One that is connected and does not answer has one more moment later in the same bucket: a lost packet shall not
   cost it. One that is not connected has none, or being off half of the time would be half as dear.
3. Probes are spaced, and at most `IN_FLIGHT_MAX` are under way. What a full bucket leaves over is dropped.
4. An answer is the nonce that was asked with, over the connection whose key Noise proved; it credits the bucket in
   which the probe was sent.
5. About itself an operator says that it runs; like anything that it says, that counts with its own weight only.

Source: PROTOCOL, "Tally" (witnessed).
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Awaitable, Callable, Collection
from typing import Protocol

import trio

from gossip import sync
from gossip.errors import (
    InvalidMessageError,
    PeerMisbehavedError,
    PeerNotConnectedError,
    PeerUnavailableError,
)
from gossip.node import Node
from gossip.sync import NONCE_BYTES, PingRequest

TICK_S = 0.5
MARGIN_S = 2
SPACING_S = 0.02
IN_FLIGHT_MAX = 64
"""Probes that wait for their answer."""
ANSWER_TIMEOUT_S = 5.0
ANSWER_BYTES_MAX = 64
"""The answer to a probe."""


class ProbeSchedule:
    """The moments of one bucket. Pure: the caller brings time (whole Unix seconds) and randomness."""

    def __init__(self, bucket_s: int, draw: random.Random) -> None:
        self._bucket_s = bucket_s
        self._draw = draw
        self._bucket = -1
        self._moments: list[tuple[int, bytes]] = []
        self._retried: set[bytes] = set()

    def turn(self, now_s: int, participants: Collection[bytes]) -> bool:
        """Draw the moments of the bucket of `now_s`, if it is another one than before; says whether it is."""
        bucket = now_s // self._bucket_s
        if bucket == self._bucket:
            return False
        self._bucket = bucket
        self._retried.clear()
        self._moments = [
            (self._draw.randrange(now_s, max(now_s + 1, self._end_s)), node_key) for node_key in sorted(participants)
        ]
        heapq.heapify(self._moments)
        return True

    def take(self, now_s: int) -> bytes | None:
        """The next participant whose moment has come; None: nobody's has."""
        if not self._moments or self._moments[0][0] > now_s:
            return None
        return heapq.heappop(self._moments)[1]

    def retry(self, node_key: bytes, now_s: int) -> None:
        """It did not answer: give it another moment, if it had one only and some time is left (rule 2)."""
        is_over = now_s // self._bucket_s != self._bucket or now_s + 1 >= self._end_s
        if not is_over and node_key not in self._retried:
            self._retried.add(node_key)
            heapq.heappush(self._moments, (self._draw.randrange(now_s + 1, self._end_s), node_key))

    @property
    def _end_s(self) -> int:
        return (self._bucket + 1) * self._bucket_s - MARGIN_S


class Requester(Protocol):
    """The part of the transport through which peers are asked."""

    def request(
        self, peer: bytes, payload: bytes, *, response_bytes_max: int, timeout_s: float
    ) -> Awaitable[bytes]: ...


class Prober:
    """Probes on behalf of one node. `participants` are the registered keys, none if this node does not witness."""

    def __init__(self, node: Node, transport: Requester, participants: Callable[[], Collection[bytes]]) -> None:
        self._node = node
        self._transport = transport
        self._participants = participants
        # Not the default generator: who sees enough of its numbers knows the next.
        self._random: random.Random = random.SystemRandom()
        self._places = trio.Semaphore(IN_FLIGHT_MAX)

    async def run(self) -> None:
        """Probe for ever. Cancellation leaves nothing behind."""
        node = self._node
        schedule = ProbeSchedule(node.witness.bucket_s, self._random)
        async with trio.open_nursery() as nursery:
            while True:
                now_s, participants = node.now_s(), self._participants()
                if participants and schedule.turn(now_s, [key for key in participants if key != node.key.public]):
                    settled_s = {key: reading.witnessed_s for key, reading in node.machine.base.readings.items()}
                    node.witness.settle(settled_s, participants, now_s)
                    node.witness.hear(node.key.public, now_s)
                while (peer := schedule.take(now_s)) is not None:
                    await self._places.acquire()
                    nursery.start_soon(self._probe, schedule, peer)
                    await trio.sleep(SPACING_S)
                await trio.sleep(TICK_S)

    async def _probe(self, schedule: ProbeSchedule, peer: bytes) -> None:
        node, nonce, sent_s = self._node, self._random.randbytes(NONCE_BYTES), self._node.now_s()
        try:
            request = sync.encode_request(PingRequest(nonce))
            answer = await self._transport.request(
                peer, request, response_bytes_max=ANSWER_BYTES_MAX, timeout_s=ANSWER_TIMEOUT_S
            )
            sync.require_pong(answer, nonce)
        except PeerNotConnectedError:
            return
        except PeerUnavailableError:
            schedule.retry(peer, node.now_s())
        except PeerMisbehavedError:
            node.drops["probe: PeerMisbehavedError"] += 1
        except InvalidMessageError as error:
            node.drop("probe", error)
        else:
            node.witness.hear(peer, sent_s)
        finally:
            self._places.release()
