"""Gossiping: joins the node to its transport, and keeps the two fed.

A shell: what messages mean is decided in `gossip`; here they are moved. Which peers are kept connected follows from
the chain's roster; where they are, from the config first and from address records then.

Source: PROTOCOL, "Spreading"; TRANSPORT.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from agent.address_file import load_addresses, save_addresses
from agent.pulse import REST_S, Pulse
from agent.reach import ReachWatch
from agent.tables import P2pTable
from agent.versions import rift_text
from contracts.model import OperatorSet
from gossip import sync
from gossip.acquaintances import Acquaintances
from gossip.addresses import PUBLIC_NETWORKS, host_addresses, own_addresses
from gossip.finding import Finder
from gossip.greeting import Greeter, answer_bytes_max
from gossip.node import Node
from gossip.probing import Prober
from gossip.pull import Puller
from gossip.roster import Roster
from gossip.transport import Transport, TransportConfig, open_transport
from gossip.wire import GOSSIP_BYTES_MAX, topic

SAVE_S = 30.0
ALONE_S = 60.0
"""With nobody connected for so long, the log says why."""
ALONE_CHECK_S = 5.0
ALONE_SHOWN = 4
REACH_CHECK_S = 2.0
VERSIONS_CHECK_S = 5.0
APPLY_S = 0.1

log = logging.getLogger(__name__)


class Gossiping:
    """One node on its transport. `address_file` is where address records outlast a restart."""

    def __init__(
        self,
        node: Node,
        transport: Transport,
        config: P2pTable,
        address_file: Path,
        acquaintances: Acquaintances,
        greeter: Greeter,
    ) -> None:
        self.node = node
        self.transport = transport
        self.acquaintances = acquaintances
        self.greeter = greeter
        self.roster = Roster()
        self.reach_watch = ReachWatch()
        self._config = config
        self._address_file = address_file
        self._configured = {bytes.fromhex(peer.node_key): peer.addresses for peer in config.peers}
        self.pulse = Pulse()
        """The daemon's, for whoever watches its loops."""
        self._applied: tuple[Roster, int] | None = None
        self._said_not_dialled: set[str] = set()
        self._saved: dict[bytes, int] = dict(node.witness.seconds)
        self._saved_addresses: tuple[bytes, ...] = ()
        self.puller = Puller(
            node,
            transport,
            self.connected,
            sync_interval_s=config.sync_interval_s,
            close_interval_s=config.close_interval_s,
        )
        self._finder = Finder(node, transport, self.connected, self.own_addresses, interval_s=config.address_interval_s)
        self._prober = Prober(node, transport, self._to_probe)

    def connected(self) -> list[bytes]:
        """Node keys of the roster's peers that are connected now, and of a version to work with."""
        return [key for key in self.transport.connected() if self.acquaintances.is_asked(key)]

    def reach(self) -> tuple[int, int]:
        """The weight of the operators that are connected, this node included, and that of all of them."""
        return self.roster.reach(self.node.key.public, frozenset(self.connected()))

    def address_source(self, node_key: bytes) -> str | None:
        """Where the addresses of this peer are from: the config, its address record, or nowhere."""
        if self._configured.get(node_key):
            return "config"
        return "record" if self.node.addresses.addresses(node_key) else None

    def not_dialled(self) -> dict[str, str]:
        """By key of the settings file: why a peer that it names is not dialled."""
        if not self.roster.members:
            return {}  # the chain has not been seen yet
        return {
            f"p2p.peers[{i}].node_key": f"{peer.node_key[:16]} is not registered in this pool: it is not dialled"
            for i, peer in enumerate(self._config.peers)
            if bytes.fromhex(peer.node_key) not in self.roster.members
        }

    def own_addresses(self) -> tuple[str, ...]:
        """Where others can dial this node: what is announced, else what it listens on; none if it only dials."""
        if self._config.announce:
            return self._config.announce
        listening = self.transport.addresses if self._config.listen else ()
        return own_addresses(listening, network=self.node.pool.network, hosts=host_addresses())

    def set_roster(self, roster: Roster) -> None:
        """Keep connected with those of the roster with whom this node has to be, wherever they are known to be."""
        self.roster = roster
        book = self.node.addresses
        if self._applied == (roster, book.revision):
            return
        if self._applied is None or self._applied[0] != roster:
            book.keep_only(roster.members | {self.node.key.public})
            self.acquaintances.keep_only(roster.members - {self.node.key.public})
            self.greeter.operators = roster.operators
            self._warn_of_not_dialled()
        self._applied = (roster, book.revision)
        peers = {key: self._addresses_of(key) for key in roster.peers_of(self.node.key.public)}
        self.transport.set_roster(peers, members=roster.members, first=roster.operators)

    async def learn_own_log(self, operators: OperatorSet, *, remembers: bool) -> None:
        """Wait until the own log is known, and nobody else was heard to sign it; without `remembers` as in `Puller`.

        The former host of an agent that moved may have signed more than its backup has, and what it signed last may
        still spread: that is taken over while this node listens for it, and asked for once more after that.

        Raises:
            KeyInUseError: another agent runs with the own key.
            OwnForkError: a peer holds a record that this key signed and that contradicts the own log.
        """
        await self.puller.recover_own_log(operators, remembers=remembers)
        if await self.greeter.listen():
            await self.puller.recover_own_log(operators, remembers=remembers)
        self.greeter.require_alone()
        self.node.is_own_log_known = True

    def _addresses_of(self, node_key: bytes) -> tuple[str, ...]:
        known = (*self._configured.get(node_key, ()), *self.node.addresses.addresses(node_key))
        return tuple(dict.fromkeys(known))

    def _to_probe(self) -> Collection[bytes]:
        return self.roster.participants if self.node.key.public in self.roster.operators else ()

    async def run(self) -> None:
        """Move messages for ever.

        Raises:
            KeyInUseError: another agent runs with the own key, and this one gives way.
        """
        await self._load_addresses()
        self._warn_if_unreachable()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._receive)
            nursery.start_soon(self._publish)
            nursery.start_soon(self._apply_addresses)
            nursery.start_soon(self._save_now_and_then)
            nursery.start_soon(self._watch_alone)
            nursery.start_soon(self._watch_reach)
            nursery.start_soon(self._watch_versions)
            nursery.start_soon(self.greeter.run)
            nursery.start_soon(self.puller.run)
            nursery.start_soon(self._finder.run)
            nursery.start_soon(self._prober.run)

    async def _receive(self) -> None:
        while True:
            self.pulse.beat("gossip")  # it comes round, whether or not anybody says something
            with trio.move_on_after(REST_S) as silence:
                message = await self.transport.messages.receive()
            if not silence.cancelled_caught:
                await self.node.take_gossip(message.data, message.origin)

    async def _publish(self) -> None:
        async for data in self.node.outbox:
            await self.transport.publish(data)

    async def _apply_addresses(self) -> None:
        while True:
            self.set_roster(self.roster)
            await trio.sleep(APPLY_S)

    async def _load_addresses(self) -> None:
        for wire in await trio.to_thread.run_sync(load_addresses, self._address_file):
            self.node.take_address(wire)
            await trio.lowlevel.checkpoint()
        self._saved_addresses = self.node.addresses.wires()

    async def _save_now_and_then(self) -> None:
        try:
            while True:
                await trio.sleep(SAVE_S)
                await self._save()
        finally:
            with trio.CancelScope(shield=True):
                await self._save()

    async def _save(self) -> None:
        """Keep what changed since the last time."""
        seconds, wires = dict(self.node.witness.seconds), self.node.addresses.wires()
        changed = {key: value for key, value in seconds.items() if self._saved.get(key) != value}
        gone = self._saved.keys() - seconds.keys()
        if changed or gone:
            await trio.to_thread.run_sync(self.node.store.keep_witness, changed, gone)
            self._saved = seconds
        if wires != self._saved_addresses:
            await trio.to_thread.run_sync(save_addresses, self._address_file, wires)
            self._saved_addresses = wires

    async def _watch_alone(self) -> None:
        """Say why, once per time that it lasts, when nobody is connected."""
        since_s, is_said = trio.current_time(), False
        while True:
            await trio.sleep(ALONE_CHECK_S)
            if self.transport.connected() or not self.roster.peers_of(self.node.key.public):
                since_s, is_said = trio.current_time(), False
            elif not is_said and trio.current_time() - since_s >= ALONE_S:
                log.warning("nobody is connected for %.0f s: %s", ALONE_S, self._why_alone())
                is_said = True

    async def _watch_reach(self) -> None:
        """Say which operators come and go, and whether an epoch can settle, as seen from here."""
        while True:
            own, connected = self.node.key.public, frozenset(self.connected())
            for news in self.reach_watch.look(own, self.roster, connected, trio.current_time()):
                log.log(logging.WARNING if news.is_warning else logging.INFO, "%s", news.text)
            await trio.sleep(REACH_CHECK_S)

    async def _watch_versions(self) -> None:
        """Say once of each kind of rift that there is one: what versions a peer names may change with each hello."""
        said: set[tuple[str, bool, bool]] = set()
        while True:
            for rift in self.acquaintances.rifts(self.roster.weights):
                kind = (rift.what, rift.stops, rift.is_outdated)
                if kind not in said:
                    said.add(kind)
                    log.log(logging.ERROR if rift.stops else logging.WARNING, "%s", rift_text(rift))
            await trio.sleep(VERSIONS_CHECK_S)

    def _why_alone(self) -> str:
        peers = [peer for peer in self.transport.peers() if peer.in_roster]
        if not any(peer.addresses for peer in peers):
            return "nobody's address is known, and nobody dials this node: name an operator in p2p.peers"
        errors = [f"{peer.node_key.hex()[:16]} at {error}" for peer in peers for error in peer.dial_errors]
        if not errors:
            return "no dial has come to an end yet"
        more = f"; and {len(errors) - ALONE_SHOWN} more, see gpupool status" if len(errors) > ALONE_SHOWN else ""
        return "; ".join(errors[:ALONE_SHOWN]) + more

    def _warn_of_not_dialled(self) -> None:
        for key, reason in self.not_dialled().items():
            if key not in self._said_not_dialled:
                log.warning("%s: %s", key, reason)
                self._said_not_dialled.add(key)

    def _warn_if_unreachable(self) -> None:
        network = self.node.pool.network
        if network in PUBLIC_NETWORKS and self._config.listen and not self.own_addresses():
            log.warning(
                "nobody can dial this node: it listens on private addresses only, and p2p.announce is not set; forward "
                "a port and announce its public address, or set p2p.listen = [] if there is none"
            )


@asynccontextmanager
async def join_pool(
    node: Node, config: P2pTable, address_file: Path, acquaintances: Acquaintances
) -> AsyncIterator[Gossiping]:
    """Open the node's transport for the duration of the block.

    Raises:
        ListenFailedError: an address of `p2p.listen` cannot be listened on.
    """
    settings = TransportConfig(
        listen=config.listen,
        announce=config.announce,
        is_public=node.pool.network in PUBLIC_NETWORKS,
        topic=topic(node.pool),
        gossip_bytes_max=GOSSIP_BYTES_MAX,
        request_bytes_max=sync.REQUEST_BYTES_MAX,
        response_bytes_max=sync.RESPONSE_BYTES_MAX,
    )

    greeter = Greeter(node, acquaintances)
    async with open_transport(
        node.key.seed, settings, serve=greeter.serve, answer_bytes_max=answer_bytes_max, part=greeter.part
    ) as transport:
        greeter.transport = transport
        yield Gossiping(node, transport, config, address_file, acquaintances, greeter)
