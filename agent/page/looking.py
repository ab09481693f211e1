"""Collects what the page shows, from the agent's parts, and keeps the page for a moment.

A shell. Whoever asks costs the node nothing that counts:

1. A page that was made less than `FRESH_S` ago is shown again, however many ask.
2. Nothing that is collected grows with the pool, but for one walk over the peers.
3. The ledger is read in a thread, when it lacks the epoch that settled last; the doctor looks in a process of its own
   (`agent.page.diagnosing`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio

from agent.earnings.report import EpochEarnings, earnings
from agent.errors import OperationError
from agent.ledger import ledger_file
from agent.ledger_reader import read_ledger
from agent.page.diagnosing import Diagnosing
from agent.page.document import page
from agent.page.facts import LastClose, Neighbours, PageFacts, Peer
from agent.page.hearing import Hearing
from agent.page.neighbourhood import PEERS_SHOWN
from agent.status import own_status
from gossip.roster import Roster

if TYPE_CHECKING:
    from agent.daemon import Agent
    from gossip.epoch_events import Progress
    from gossip.transport import PeerView

FRESH_S = 2.0
EPOCHS_SHOWN = 10
LEDGER_RETRY_S = 5.0


class Page:
    """The status page of one agent."""

    def __init__(self, agent: Agent) -> None:
        self.diagnosing = Diagnosing(agent.config.path.absolute())
        self._agent = agent
        self._hearing = Hearing()
        self._last_close: LastClose | None = None
        self._making = trio.Lock()
        self._html = ""
        self._made_s = float("-inf")
        self._epochs: tuple[EpochEarnings, ...] = ()
        self._no_epochs: str | None = None
        self._read_s = float("-inf")
        """When the ledger was read (trio time)."""

    async def html(self) -> str:
        """The page as of now, or of a moment ago. Cancellation leaves nothing behind."""
        self.diagnosing.look()
        async with self._making:
            if trio.current_time() - self._made_s >= FRESH_S:
                await self._read_ledger()
                facts = self._facts()
                await trio.lowlevel.checkpoint()  # in a pool of thousands both halves take a while
                self._html, self._made_s = page(facts), trio.current_time()
        return self._html

    def look(self) -> None:
        """Note what can be seen only now: how the epoch closes and who heard whom in it. Call it every few seconds."""
        agent = self._agent
        if agent.node is not None:
            self._look_at_close(agent.node.machine.progress())
        if agent.node is not None and agent.gossiping is not None:
            self._hearing.look(agent.node.machine, _shown(agent.key.public, agent.gossiping.roster))

    def _look_at_close(self, progress: Progress | None) -> None:
        if progress is not None and progress.total_weight > 0:
            self._last_close = LastClose(
                epoch=progress.epoch,
                attested_weight=progress.attested_weight,
                total_weight=progress.total_weight,
            )

    def _facts(self) -> PageFacts:
        agent, now_s, doctor = self._agent, int(time.time()), self.diagnosing
        return PageFacts(
            now_s=now_s,
            config=agent.config.path,
            status=own_status(agent, now_s),
            trouble=agent.health.healthy() or agent.health.ready(),
            diagnosis=doctor.latest,
            silence=doctor.silence,
            last_close=self._last_close,
            epochs=self._epochs,
            no_epochs=self._no_epochs,
            neighbours=self._neighbours(),
        )

    def _neighbours(self) -> Neighbours:
        agent = self._agent
        if agent.gossiping is None:
            return Neighbours(heard_s={})
        own, roster, now = agent.key.public, agent.gossiping.roster, trio.current_time()
        views = {view.node_key: view for view in agent.gossiping.transport.peers()}
        connected = {key for key, view in views.items() if view.connected}
        usable = frozenset(agent.gossiping.connected())
        others = roster.members - {own}
        heard_s = self._hearing.heard_s()
        return Neighbours(
            peers=tuple(
                _peer(key, roster, None if key == own else views.get(key), is_own=key == own, now=now)
                for key in _shown(own, roster)
            ),
            operators=len(others & roster.operators),
            operators_connected=len(others & roster.operators & connected),
            operators_unusable=len((others & roster.operators & connected) - usable),
            participants=len(others - roster.operators),
            participants_connected=len((others - roster.operators) & connected),
            epoch=self._hearing.epoch,
            heard_s={
                operator.hex(): {key.hex(): value_s for key, value_s in read.items()}
                for operator, read in heard_s.items()
            },
        )

    async def _read_ledger(self) -> None:
        """Read the last epochs again, unless the last one that settled is among them; not too often."""
        own = self._agent.books.own
        is_current = own is not None and len(self._epochs) > 0 and self._epochs[-1].epoch == own["epoch"]
        if is_current or trio.current_time() < self._read_s + LEDGER_RETRY_S:
            return
        try:
            self._epochs = await trio.to_thread.run_sync(self._last_epochs)
            self._no_epochs = None
        except OperationError as error:
            self._epochs, self._no_epochs = (), str(error)
        self._read_s = trio.current_time()

    def _last_epochs(self) -> tuple[EpochEarnings, ...]:
        """Blocks as long as the disk takes. Raises OperationError."""
        with read_ledger(ledger_file(self._agent.config), self._agent.pool) as ledger:
            rows = ledger.epochs(last=EPOCHS_SHOWN + 1)  # one more: what the first one brought may follow from it
        return tuple(earnings(rows, ())[-EPOCHS_SHOWN:])


def _shown(own: bytes, roster: Roster) -> Sequence[bytes]:
    """Who is on the map: this node, then operators by weight, then participants; at most `PEERS_SHOWN`."""
    operators = sorted(roster.operators - {own}, key=lambda key: (-roster.weights.get(key, 0), key))
    room = max(0, PEERS_SHOWN - 1 - len(operators))
    participants = sorted(roster.participants - roster.operators - {own})[:room] if room else []
    return [own, *operators, *participants][:PEERS_SHOWN]


def _peer(key: bytes, roster: Roster, view: PeerView | None, *, is_own: bool, now: float) -> Peer:
    heard_s = view.last_heard_s if view is not None else None
    rtt_s = view.rtt_s if view is not None else None
    return Peer(
        node_key=key.hex(),
        is_operator=key in roster.operators,
        connected=None if is_own else view is not None and view.connected,
        heard_ago_s=None if heard_s is None else now - heard_s,
        rtt_ms=None if rtt_s is None else 1000 * rtt_s,
    )
