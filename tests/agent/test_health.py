"""What the supervisor is told: the start, the line, the watchdog; heard at a real datagram socket."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from contract_states import pool_state, rewards_state
from pool_fixture import EPOCH_S, START_S, key, operator_set, participant, policy
from trio.testing import MockClock

from agent.health import STARTED_WITHIN_S, STUCK_AFTER_S, Health
from agent.measuring import Measured, SourceView
from agent.notify import Notifier
from agent.policies import Policies
from agent.pulse import Loop, Pulse
from agent.settling import PoolView
from contracts.chain import Block
from contracts.model import Address, ParticipantStatus
from gossip.roster import Roster

LOOPS: tuple[Loop, ...] = ("measure", "gossip", "chain")


@dataclass
class Supervisor:
    """systemd, as far as its socket goes."""

    path: str
    receiver: socket.socket
    heard: list[str] = field(default_factory=list)

    def hear(self) -> list[str]:
        """All that came, one assignment each."""
        while True:
            try:
                self.heard += self.receiver.recv(4096).decode().splitlines()
            except BlockingIOError:
                return self.heard


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(path)
        receiver.setblocking(False)
        yield Supervisor(path, receiver)


class AgentInPieces:
    """An agent's state, as `Health` looks at it: earning, unless a test takes something away."""

    def __init__(self) -> None:
        self.pulse = Pulse()
        rewards = rewards_state(Address(0, bytes(32)), start_s=START_S, end_s=START_S + EPOCH_S)
        self.view = PoolView(
            block=Block(seqno=1, root_hash=bytes(32), file_hash=bytes(32), time_s=START_S),
            state=pool_state(operator_set=operator_set(4)),
            rewards=rewards,
        )
        self.settling: Any = SimpleNamespace(view=self.view)
        self.key = key(0)
        self.entry = participant(0)
        self.policies = Policies(policy())
        self.measuring = SimpleNamespace(measured=Measured())
        self.attesting = SimpleNamespace(is_valid=lambda now_s: True)
        self.is_own_log_known = True
        self.receipts_error: str | None = None
        self.node = None
        roster = Roster(weights={key(i).public: 1 for i in range(4)})
        self.gossiping: Any = SimpleNamespace(
            roster=roster,
            connected=lambda: [key(1).public, key(2).public],
            reach_watch=SimpleNamespace(obstacle=None),
        )

    def now_s(self) -> int:
        return START_S + 1


@pytest.fixture
def agent() -> AgentInPieces:
    return AgentInPieces()


def health_of(agent: AgentInPieces) -> Health:
    return Health(agent)  # type: ignore[arg-type]


async def report_for(agent: AgentInPieces, supervisor: Supervisor, seconds: float) -> list[str]:
    with trio.move_on_after(seconds):
        await health_of(agent).report(Notifier(supervisor.path))
    return supervisor.hear()


def test_who_earns_says_so_with_what_matters_next(agent: AgentInPieces) -> None:
    assert health_of(agent).ready() is None
    epoch = agent.view.rewards.current_epoch if agent.view.rewards is not None else None
    assert health_of(agent).line() == f"epoch {epoch}: earning; 3 of 4 operators; next close in 2 min"


@pytest.mark.parametrize(
    ("take_away", "reason"),
    [
        (lambda agent: setattr(agent.view, "error", "no server answers"), "the chain: no server answers"),
        (lambda agent: setattr(agent.view, "clock", "the clock is off"), "the clock is off"),
        (lambda agent: setattr(agent, "entry", None), "not registered"),
        (lambda agent: setattr(agent.gossiping.reach_watch, "obstacle", "nobody connected"), "nobody connected"),
        (lambda agent: setattr(agent, "is_own_log_known", False), "more than two thirds of the weight"),
        (lambda agent: setattr(agent.attesting, "is_valid", lambda now_s: False), "no evidence in force"),
        (lambda agent: setattr(agent.view, "obstacle", "epoch 3 waits"), "epoch 3 waits"),
        (
            lambda agent: agent.measuring.measured.sources.update({(1, 0): SourceView(error="refused")}),
            "engine: refused",
        ),
    ],
)
def test_the_first_obstacle_is_the_line(agent: AgentInPieces, take_away: Any, reason: str) -> None:
    take_away(agent)
    ready = health_of(agent).ready()
    assert ready is not None
    assert reason in ready
    assert health_of(agent).line().endswith(ready)


def test_a_suspended_participant_is_not_ready(agent: AgentInPieces) -> None:
    agent.entry = replace(agent.entry, status=ParticipantStatus.SUSPENDED)
    assert "suspended" in str(health_of(agent).ready())


async def test_the_start_is_done_once_the_chain_was_seen(
    agent: AgentInPieces, supervisor: Supervisor, autojump_clock: MockClock
) -> None:
    agent.is_own_log_known = False  # what waits for others is no matter of the start
    heard = await report_for(agent, supervisor, 30)
    assert heard[0] == "READY=1"
    assert heard.count("READY=1") == 1
    assert "two thirds" in heard[1]


async def test_a_chain_that_is_away_delays_the_start_and_does_not_prevent_it(
    agent: AgentInPieces, supervisor: Supervisor, autojump_clock: MockClock
) -> None:
    settling, agent.settling = agent.settling, None
    heard = list(await report_for(agent, supervisor, STARTED_WITHIN_S - 1))
    assert heard == ["STATUS=waiting for the chain"]
    agent.view.state = agent.view.rewards = None
    agent.view.error, agent.settling = "nobody answers", settling
    heard = await report_for(agent, supervisor, STARTED_WITHIN_S + 2)
    assert heard[-2:] == ["READY=1", "STATUS=the chain: nobody answers"]


async def test_the_line_is_told_when_it_changes(
    agent: AgentInPieces, supervisor: Supervisor, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(health_of(agent).report, Notifier(supervisor.path))
        await trio.sleep(60)
        agent.entry = replace(agent.entry, status=ParticipantStatus.SUSPENDED)
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    lines = [each for each in supervisor.hear() if each.startswith("STATUS=")]
    assert len(lines) == 2
    assert "earning" in lines[0]
    assert "suspended" in lines[1]


async def test_the_log_has_each_change_of_the_reason_once(
    agent: AgentInPieces, supervisor: Supervisor, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "agent.health")
    agent.is_own_log_known = False
    health, watch = health_of(agent), agent.gossiping.reach_watch
    async with trio.open_nursery() as nursery:
        nursery.start_soon(health.report, Notifier(supervisor.path))
        await trio.sleep(10)
        agent.is_own_log_known = True
        await trio.sleep(10)
        for weight in (2, 1, 2):  # one reason, whatever its words are
            watch.obstacle = f"operators with {weight} of 4"
            await trio.sleep(10)
        watch.obstacle = None
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert [(each.levelname, each.getMessage()) for each in caplog.records] == [
        ("INFO", "not ready: waiting for operators of more than two thirds of the weight"),
        ("INFO", "ready: the pool can count on this node"),
        ("WARNING", "not ready: operators with 2 of 4"),
        ("INFO", "ready: the pool can count on this node"),
    ]


@pytest.mark.parametrize("stuck", LOOPS)
async def test_one_loop_that_hangs_starves_the_watchdog(
    agent: AgentInPieces, supervisor: Supervisor, autojump_clock: MockClock, stuck: Loop
) -> None:
    async def run(loop: Loop) -> None:
        while True:
            await agent.pulse.rest(loop, 5)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(health_of(agent).report, Notifier(supervisor.path))
        for loop in LOOPS:
            if loop != stuck:
                nursery.start_soon(run, loop)
        with trio.move_on_after(60):
            await run(stuck)
        fed = supervisor.hear().count("WATCHDOG=1")
        assert fed >= 60 / 5 - 2
        assert health_of(agent).healthy() is None
        await trio.sleep(STUCK_AFTER_S + 10)
        assert supervisor.hear().count("WATCHDOG=1") <= fed + 1
        assert f"the {stuck} loop has not come round for" in str(health_of(agent).healthy())
        agent.pulse.beat(stuck)
        await trio.sleep(2)
        assert supervisor.hear().count("WATCHDOG=1") >= fed + 1
        assert health_of(agent).healthy() is None
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("left_s", "text"), [(-3, "now"), (1, "in 1 min"), (61, "in 2 min"), (7140, "in 119 min"), (86_400, "in 24 h")]
)
def test_the_next_close(agent: AgentInPieces, left_s: int, text: str) -> None:
    assert agent.view.rewards is not None
    agent.view.rewards = replace(
        agent.view.rewards, running=replace(agent.view.rewards.running), current_end_s=START_S + left_s
    )
    assert health_of(agent).line().endswith(f"next close {text}")
