"""Acquaintances: what follows from hellos. Which peers are of a version to work with, and whether the key is shared.

Decides nothing that is signed or counted. Untrusted: hellos, which `gossip.hello` checked.

1. A peer is met once a hello was exchanged, or `TRIES` were in vain. Before that it is asked for nothing else.
2. A met peer of another protocol is refused. One that says no hello is not: its messages name the protocol themselves.
3. A *rival* is another instance of the own key that names this one among those it was told of: it said so after this
   one started, so it runs elsewhere. Whoever lies can show nothing but what the key signed, and nothing that was signed
   before this run names it: so one honest peer is enough, no liar does harm, and no clock has a say.
4. Any other instance that is told of, and did not end for sure, is a *suspect*: it may be the former host of an agent
   that moved. It is listened for, for a while. The instances before this one on the same journal ended for sure: two
   processes cannot hold one.
5. Of two that run, the one that started later gives way; see `must_yield`. The first one holds the log.

Pure: no clock, no I/O. Times are Unix seconds.

Source: ADR 0038.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from contracts.signing import SigningKey
from gossip.hello import (
    POLICIES_MAX,
    PROTOCOLS,
    SIGHTINGS_MAX,
    TALLIES,
    Hello,
    Instance,
    Sighting,
    encode_hello,
    make_instance,
    parse_hello,
)
from gossip.records import PoolId

TRIES = 3
"""Hellos in vain after which a peer counts as one that says none."""
RIVAL_SHOWN_S = 600
"""A rival that nobody heard for so long is no alarm any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """This run of the agent: its version (printable ASCII), id (16 bytes), start, and the runs before it (rule 4)."""

    agent: str
    id: bytes
    started_s: int
    ended: frozenset[bytes] = frozenset()


class Terms(Enum):
    """On what terms a peer is. The value is what people are shown."""

    UNMET = "unmet"
    SILENT = "says no hello"
    FELLOW = "fellow"
    OTHER_PROTOCOL = "other protocol"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """Another instance of the own key that runs: `heard_s` and `address` are by the word of the peer that told."""

    instance: Instance
    teller: bytes
    heard_s: int
    address: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rift:
    """Operators of another version of `what` ("protocol" or "tally"): their weight, and all that they speak.

    `newer_weight` is the weight of those of them that name a newer version than this agent has.
    """

    what: str
    weight: int
    newer_weight: int
    total_weight: int
    theirs: tuple[int, ...]
    ours: tuple[int, ...]

    @property
    def stops(self) -> bool:
        """Whether those that are left are too few for more than two thirds of the weight."""
        return 3 * self.weight >= self.total_weight

    @property
    def is_outdated(self) -> bool:
        """Whether it is this agent that lags: too much of the weight for a liar names a newer version."""
        return 3 * self.newer_weight >= self.total_weight


@dataclass(frozen=True, slots=True)
class _Heard:
    instance: Instance
    heard_s: int
    address: str | None


class Acquaintances:
    """What one node knows of its peers' versions, and of others that use their keys, or its own."""

    def __init__(self, key: SigningKey, pool: PoolId, run: Run, *, policies: Callable[[], Sequence[bytes]]) -> None:
        """`policies` gives the hashes of the policies that are held now."""
        self.run = run
        self._key = key
        self._pool = pool
        self._policies = policies
        self._members: frozenset[bytes] = frozenset()
        self._hellos: dict[bytes, Hello] = {}
        self._failed: Counter[bytes] = Counter()
        self._instances: dict[bytes, dict[bytes, _Heard]] = {}
        """By node key and id: who said a hello here lately."""
        self._told: dict[bytes, Rival] = {}
        """By id: other instances of the own key, whether they run or not."""

    def keep_only(self, members: Collection[bytes]) -> None:
        """Remember nobody but these, from now on."""
        self._members = frozenset(members)
        for known in (self._hellos, self._failed, self._instances):
            for gone in known.keys() - self._members:
                del known[gone]

    def say(self, to: bytes, now_s: int) -> bytes:
        """The hello for the peer with this node key."""
        run = self.run
        # All of them: over which of two connections this goes, and so to which of them, is not known.
        seen = [
            Sighting(instance=heard.instance, ago_s=max(0, now_s - heard.heard_s), address=heard.address)
            for heard in self._instances.get(to, {}).values()
        ]
        return encode_hello(
            Hello(
                protocols=PROTOCOLS,
                tallies=TALLIES,
                agent=run.agent,
                policies=tuple(self._policies()[:POLICIES_MAX]),
                instance=make_instance(
                    self._key,
                    self._pool,
                    instance=run.id,
                    started_s=run.started_s,
                    said_s=now_s,
                    others=self._told,  # so that one that runs learns of this one (rule 3)
                ),
                sightings=tuple(seen),
            )
        )

    def take(self, peer: bytes, data: bytes, now_s: int, address: str | None) -> bool:
        """Take over what `peer` says, heard from `address`; whether it is to be greeted once more.

        That is so if it is another instance than said hello before, or told of one of the own key that was not known:
        it has yet to hear that this one knows.

        Raises:
            InvalidMessageError: as `gossip.hello.parse_hello`.
        """
        hello = parse_hello(data, self._pool, peer=peer, own=self._key.public)
        known = self._told.keys() | set()
        for sighting in hello.sightings:
            self._take_sighting(peer, sighting, now_s)
        if peer not in self._members:
            return False
        before = self._hellos.get(peer)
        self._hellos[peer] = hello
        self._failed.pop(peer, None)
        heard = self._instances.setdefault(peer, {})
        heard.pop(hello.instance.id, None)
        heard[hello.instance.id] = _Heard(hello.instance, now_s, address)
        while len(heard) > SIGHTINGS_MAX:
            del heard[next(iter(heard))]
        is_another = before is not None and before.instance.id != hello.instance.id
        return is_another or not self._told.keys() <= known

    def answer(self, peer: bytes, data: bytes, now_s: int, address: str | None) -> tuple[bytes, bool]:
        """Take over a peer's hello and give ours; the second as `take` returns it. Raises as that does."""
        greets_again = self.take(peer, data, now_s, address)
        return self.say(peer, now_s), greets_again

    def fail(self, peer: bytes) -> None:
        """A hello was in vain."""
        if peer in self._members:
            self._failed[peer] += 1

    def terms(self, peer: bytes) -> Terms:
        """On what terms this peer is now."""
        hello = self._hellos.get(peer)
        if hello is not None:
            return Terms.FELLOW if _common(hello.protocols, PROTOCOLS) else Terms.OTHER_PROTOCOL
        return Terms.SILENT if self._failed[peer] >= TRIES else Terms.UNMET

    def hello(self, peer: bytes) -> Hello | None:
        """The last hello of this peer."""
        return self._hellos.get(peer)

    def is_asked(self, peer: bytes) -> bool:
        """Whether this peer is asked for anything besides its hello (rules 1 and 2)."""
        return self.terms(peer) in (Terms.FELLOW, Terms.SILENT)

    def agents(self) -> Counter[str]:
        """How many peers are of which agent's version, by their own word; this node is not among them."""
        return Counter(hello.agent for hello in self._hellos.values())

    def rifts(self, weights: Mapping[bytes, int]) -> tuple[Rift, ...]:
        """Operators, by weight, that speak another protocol or compute another tally than this node."""
        told = {key: self._hellos[key] for key in weights if key in self._hellos and key != self._key.public}
        found = []
        for what, ours, theirs in (
            ("protocol", PROTOCOLS, {key: hello.protocols for key, hello in told.items()}),
            ("tally", TALLIES, {key: hello.tallies for key, hello in told.items()}),
        ):
            apart = {key: versions for key, versions in theirs.items() if not _common(versions, ours)}
            if apart:
                rift = Rift(
                    what=what,
                    weight=sum(weights[key] for key in apart),
                    newer_weight=sum(weights[key] for key, versions in apart.items() if max(versions) > max(ours)),
                    total_weight=sum(weights.values()),
                    theirs=tuple(sorted({version for versions in apart.values() for version in versions})),
                    ours=ours,
                )
                found.append(rift)
        return tuple(found)

    # Who else uses the own key.

    def rival(self, now_s: int) -> Rival | None:
        """The other instance that runs with the own key and was heard last, within `RIVAL_SHOWN_S` (rule 3)."""
        running = [told for told in self._told.values() if self._is_rival(told.instance)]
        recent = [told for told in running if told.heard_s > now_s - RIVAL_SHOWN_S]
        return max(recent, key=lambda told: told.instance.said_s, default=None)

    @property
    def has_suspect(self) -> bool:
        """Whether an instance was told of that may still run (rule 4)."""
        return any(key not in self.run.ended for key in self._told)

    def must_yield(self, rival: Rival) -> bool:
        """Whether it is this instance that gives way: of two, the one that started later; else by id."""
        theirs = rival.instance
        return (self.run.started_s, self.run.id) > (theirs.started_s, theirs.id)

    def _is_rival(self, instance: Instance) -> bool:
        return self.run.id in instance.others

    def _take_sighting(self, teller: bytes, sighting: Sighting, now_s: int) -> None:
        instance = sighting.instance
        held = self._told.get(instance.id)
        if instance.id == self.run.id or (held is not None and self._worth(held.instance) >= self._worth(instance)):
            return
        self._told[instance.id] = Rival(
            instance=instance, teller=teller, heard_s=max(0, now_s - sighting.ago_s), address=sighting.address
        )
        while len(self._told) > SIGHTINGS_MAX:
            del self._told[min(self._told, key=lambda key: self._worth(self._told[key].instance))]

    def _worth(self, instance: Instance) -> tuple[bool, int]:
        """What proves a rival comes before all else: clocks may be set back."""
        return self._is_rival(instance), instance.said_s


def _common(theirs: Sequence[int], ours: Sequence[int]) -> bool:
    return not set(theirs).isdisjoint(ours)
