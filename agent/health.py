"""How this agent stands: alive, ready, and what its supervisor is told of it.

Decides what `/-/healthy` and `/-/ready` answer, when the start counts as done, what `systemctl status` shows, and when
the watchdog is fed. What others do, or fail to do, must never make a supervisor end this process: no restart helps.

1. Healthy: this process does what it can do alone, so its loops come round (`agent.pulse`). A supervisor may restart
   it if not.
2. Ready: the pool can count on this node now, and the work that it does counts. That takes others: the chain, the
   operators of more than two thirds of the weight (`agent.reach`), the registry. The first reason that holds is
   given, in one line; the log has each change of it, once for a reason whose text alone changes.
3. Started (READY=1): the journal was checked, the listener is up, and the chain was read; or `STARTED_WITHIN_S` are
   over: whoever waits for the start, a boot or an upgrade, must not wait for a chain that is away.
4. The watchdog is fed once all loops came round since it was fed before.

Source: sd_notify(3); Prometheus, "Management API" (healthy and ready).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from agent.notify import Notifier
from agent.status import not_earning, place_holder

if TYPE_CHECKING:
    from agent.daemon import Agent

START_CHECKS_S = 900
"""What the checks before the start may take: a journal of gigabytes on a slow disk, or its migration."""
STARTED_WITHIN_S = 60.0
REPORT_S = 1.0
STALE_AFTER_S = 120
STUCK_AFTER_S = 120

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """What keeps the pool from counting on this node. `kind` is the same while the thing is, whatever `text` says."""

    kind: str
    text: str


class Health:
    """How one agent stands, judged anew for each question from its services' own state."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._said_kind: str | None = ""
        """Of the obstacle that the log was told of last; None: that there is none. At first it was told nothing."""
        self._was_ready = False

    async def report(self, notifier: Notifier) -> None:
        """Tell the supervisor for ever: the start (rule 3), the line, the watchdog (rule 4). Cancelled, it stops."""
        began_s, said = trio.current_time(), ""
        is_started = False
        while True:
            obstacle = self._obstacle()
            self._note(obstacle)
            line = self._line(obstacle)
            if not is_started and (self._has_seen_chain() or trio.current_time() - began_s >= STARTED_WITHIN_S):
                notifier.ready(line)
                is_started = True
            elif line != said:
                notifier.status(line)
            said = line
            if self._agent.pulse.take_round():
                notifier.watchdog()
            await trio.sleep(REPORT_S)

    def healthy(self) -> str | None:
        """Why this process does not do what it can do alone; None if it does (rule 1)."""
        silent = self._agent.pulse.most_silent()
        if silent is not None and silent[1] > STUCK_AFTER_S:
            return f"the {silent[0]} loop has not come round for {silent[1]:.0f} s"
        return None

    def ready(self) -> str | None:
        """Why the pool cannot count on this node now, or its work does not count; None if both hold (rule 2)."""
        obstacle = self._obstacle()
        return None if obstacle is None else obstacle.text

    def line(self) -> str:
        """What the agent does, or the first thing that keeps it from that, for `systemctl status`."""
        return self._line(self._obstacle())

    def _obstacle(self) -> Obstacle | None:
        agent = self._agent
        view = agent.settling.view if agent.settling is not None else None
        if view is None or view.state is None or view.block is None:
            away = "waiting for the chain" if view is None or view.error is None else f"the chain: {view.error}"
            return Obstacle(kind="chain", text=away)
        barred = not_earning(agent.entry, view.state)
        policy = agent.policies.in_force
        unread = agent.measuring.measured.error_of(policy.work.kind)
        needs_receipts = policy.receipts.ceiling == "receipts"
        short = agent.gossiping.reach_watch.obstacle if agent.gossiping is not None else None
        now_s = agent.now_s()
        reasons = [
            ("chain", view.error is not None, f"the chain: {view.error}"),
            ("block", now_s - view.block.time_s > STALE_AFTER_S, "the last block seen is too old"),
            ("clock", view.clock is not None, str(view.clock)),
            ("entry", barred is not None, str(barred)),
            ("pool", view.obstacle is not None, str(view.obstacle)),
            ("operators", short is not None, str(short)),
            ("own log", not agent.is_own_log_known, "waiting for operators of more than two thirds of the weight"),
            ("evidence", not agent.attesting.is_valid(now_s), "no evidence in force: work earns nothing"),
            ("place", place_holder(agent, now_s) is not None, "another node holds the place on this machine or a GPU"),
            (
                "receipts",
                agent.receipts_error is not None and needs_receipts,
                f"no receipts are taken: {agent.receipts_error}",
            ),
            ("source", unread is not None, f"{policy.work.source}: {unread}"),
        ]
        return next((Obstacle(kind=kind, text=text) for kind, holds, text in reasons if holds), None)

    def _note(self, obstacle: Obstacle | None) -> None:
        """Tell the log if that is news; what is missing before the node was ready for the first time is no warning."""
        kind = None if obstacle is None else obstacle.kind
        if kind == self._said_kind:
            return
        self._said_kind = kind
        if obstacle is None:
            self._was_ready = True
            log.info("ready: the pool can count on this node")
        else:
            log.log(logging.WARNING if self._was_ready else logging.INFO, "not ready: %s", obstacle.text)

    def _line(self, obstacle: Obstacle | None) -> str:
        agent, reason = self._agent, None if obstacle is None else obstacle.text
        view = agent.settling.view if agent.settling is not None else None
        if view is None or view.rewards is None or view.block is None:
            return reason or "starting"
        epoch = f"epoch {view.rewards.current_epoch}"
        if reason is not None or agent.gossiping is None:
            return f"{epoch}: {reason or 'starting'}"
        operators, connected = agent.gossiping.roster.weights, {agent.key.public, *agent.gossiping.connected()}
        heard = sum(node_key in connected for node_key in operators)
        left = _time_left(view.rewards.current_end_s - view.block.time_s)
        return f"{epoch}: earning; {heard} of {len(operators)} operators; next close {left}"

    def _has_seen_chain(self) -> bool:
        return self._agent.settling is not None and self._agent.settling.view.state is not None


def _time_left(seconds: int) -> str:
    """A time to come in a word or two, which does not change with every look."""
    if seconds <= 0:
        return "now"
    minutes = -(-seconds // 60)
    return f"in {minutes} min" if minutes < 120 else f"in {minutes // 60} h"
