"""Before the first record: in which order an agent learns its log and listens for others; and how it stops for them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from node_pool import NOW_S, Member, Network, inline
from pool_fixture import POOL, evidence, key, operator_set
from trio.testing import MockClock

from agent import daemon
from agent.errors import JournalError
from agent.gossiping import Gossiping
from agent.tables import P2pTable
from gossip.acquaintances import Acquaintances, Run
from gossip.errors import KeyInUseError, OwnForkError
from gossip.greeting import LISTEN_S, Greeter
from gossip.records import CloseBody, Record

OWN, OPERATOR = 0, 1


@pytest.fixture(autouse=True)
def inline_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trio.to_thread, "run_sync", inline)


def acquaintances_of(i: int, run: int, started_s: int) -> Acquaintances:
    known = Acquaintances(key(i), POOL, Run(agent="a", id=bytes([run]) * 16, started_s=started_s), policies=list)
    known.keep_only([key(k).public for k in range(4)])
    return known


def tell_of(another: Acquaintances, to: Acquaintances, now_s: int) -> None:
    """An operator heard another run of the key, and tells this one of it."""
    operator = acquaintances_of(OPERATOR, 1, NOW_S)
    operator.take(key(OWN).public, another.say(key(OPERATOR).public, now_s), now_s, None)
    to.take(key(OPERATOR).public, operator.say(key(OWN).public, now_s), now_s, None)


def gossiping_of(member: Member, acquaintances: Acquaintances, folder: Path) -> Gossiping:
    """One without a transport: peers are those of the member's network."""
    transport: Any = SimpleNamespace(connection_numbers=dict)
    greeter = Greeter(member.node, acquaintances)
    made = Gossiping(member.node, transport, P2pTable(), folder / "addresses", acquaintances, greeter)
    made.puller = member.puller
    return made


async def signed_elsewhere(network: Network, count: int) -> list[Record]:
    """What the former host signed, the last of it after its backup was made."""
    before = Network(network.n).members[OWN]
    return [await before.node.append(evidence(NOW_S - 100 + i)) for i in range(count)]


async def test_what_the_former_host_signed_last_comes_while_this_one_listens(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    network = Network(4)
    member = network.members[OWN]
    records = await signed_elsewhere(network, 3)
    this, former = acquaintances_of(OWN, 2, NOW_S), acquaintances_of(OWN, 1, NOW_S - 500)
    tell_of(former, this, NOW_S)
    gossiping = gossiping_of(member, this, tmp_path)
    known: list[bool] = []
    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:

            async def learn() -> None:
                await gossiping.learn_own_log(operator_set(4), remembers=False)
                assert trio.current_time() >= LISTEN_S

            nursery.start_soon(learn)
            await trio.sleep(LISTEN_S / 3)
            known.append(member.node.is_own_log_known)
            await member.node.take_records([records[0].wire])
            await trio.sleep(LISTEN_S / 3)
            for other in (2, 3):  # they have not told this one when it is over
                await network.members[other].node.take_records([record.wire for record in records])
    assert [*known, member.node.is_own_log_known] == [False, True]
    following = await member.node.append(CloseBody())
    assert (following.seq, following.prev_hash) == (4, records[-1].hash)


async def test_once_the_log_is_known_a_record_from_elsewhere_is_an_alarm(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    network = Network(4)
    member = network.members[OWN]
    gossiping = gossiping_of(member, acquaintances_of(OWN, 1, NOW_S), tmp_path)
    with trio.fail_after(10):
        await gossiping.learn_own_log(operator_set(4), remembers=True)
    (theirs,) = await signed_elsewhere(network, 1)
    with pytest.raises(OwnForkError, match="another agent signs with it"):
        await member.node.take_records([theirs.wire])


async def test_who_hears_a_rival_while_it_listens_never_counts_its_log_as_known(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    member = Network(4).members[OWN]
    this, other = acquaintances_of(OWN, 2, NOW_S), acquaintances_of(OWN, 1, NOW_S - 500)
    tell_of(other, this, NOW_S)
    tell_of(this, other, NOW_S)
    gossiping = gossiping_of(member, this, tmp_path)

    async def hear() -> None:
        await trio.sleep(LISTEN_S / 2)
        tell_of(other, this, NOW_S + int(LISTEN_S / 2))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hear)
        with pytest.raises(KeyInUseError, match="runs on another host"):
            await gossiping.learn_own_log(operator_set(4), remembers=True)
    assert not member.node.is_own_log_known


# The agent that stops.


class StoppingAgent:
    """An agent whose key runs elsewhere, on a disk that may have failed."""

    def __init__(self, noted: list[bytes], error: JournalError | None, calls: Counter[str]) -> None:
        def note(_key: str, value: bytes) -> None:
            if error is not None:
                raise error
            noted.append(value)

        self.journal = SimpleNamespace(note=note, close=lambda: calls.update(["journal"]))
        self.ledger = SimpleNamespace(close=lambda: calls.update(["ledger"]))

    async def run(self) -> None:
        async with trio.open_nursery():
            raise KeyInUseError("this node key runs on another host")


@pytest.mark.parametrize("error", [None, JournalError("journal: cannot be written")], ids=["good disk", "broken disk"])
def test_an_agent_that_stops_for_its_key_says_so_whatever_its_disk_does(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: JournalError | None
) -> None:
    noted: list[bytes] = []
    calls = Counter[str]()
    config: Any = None
    monkeypatch.setattr(daemon, "forbid_dumps", lambda: None)
    monkeypatch.setattr(daemon, "Agent", lambda _config: StoppingAgent(noted, error, calls))
    with pytest.raises(BaseExceptionGroup) as raised:
        daemon.run_agent(config)
    assert raised.group_contains(KeyInUseError, match="runs on another host")
    assert not raised.group_contains(JournalError)
    assert ("cannot be written" in caplog.text) == (error is not None)
    assert noted == ([] if error else [b"this node key runs on another host"])
    assert calls == {"journal": 1, "ledger": 1}
