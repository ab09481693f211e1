"""Behind the status page: who hears whom, the doctor's process, and that asking costs the node next to nothing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from doctor_facts import changed, healthy, told
from page_facts import epoch, neighbours, node_key, status
from pool_fixture import key
from trio.testing import MemoryReceiveStream, MemorySendStream, memory_stream_one_way_pair

from agent.doctor.diagnosis import diagnose, verdict
from agent.doctor.facts import Facts, Unknown
from agent.errors import OperationError
from agent.page import looking
from agent.page.diagnosing import IDLE_S, INTERVAL_S, LINE_BYTES_MAX, ROUND_S, Diagnosing, start_child
from agent.page.diagnosing_child import answer
from agent.page.facts import LastClose
from agent.page.hearing import Hearing
from agent.page.looking import FRESH_S, LEDGER_RETRY_S, Page, _shown
from agent.page.neighbourhood import _lines
from gossip.messages import Observation
from gossip.roster import Roster

# Who hears whom.


def observed(operator: int, witnessed_s: dict[int, int]) -> Observation:
    logs: Any = {key(i).public: SimpleNamespace(witnessed_s=value_s) for i, value_s in witnessed_s.items()}
    return Observation(
        operator=key(operator).public,
        epoch=1,
        set_id=1,
        policy_hash=bytes(32),
        base=bytes(32),
        logs=logs,
        forks=(),
        digest=bytes(32),
        wire=b"",
    )


class Machine:
    """As much of the machine as is looked at; `settled_s` is what the base says of everybody."""

    def __init__(self, epoch: int | None, *observations: Observation, settled_s: int = 0) -> None:
        self.closing = epoch
        self.base = SimpleNamespace(reading=lambda _: SimpleNamespace(witnessed_s=settled_s))
        self._observations = observations

    def messages(self, _: int) -> Sequence[object]:
        return (*self._observations, "an attest")


KEYS = tuple(key(i).public for i in range(3))


def heard(hearing: Hearing) -> dict[tuple[int, int], int]:
    index = {key_: i for i, key_ in enumerate(KEYS)}
    return {
        (index[operator], index[other]): value_s
        for operator, read in hearing.heard_s().items()
        for other, value_s in read.items()
    }


def look(hearing: Hearing, machine: Machine) -> None:
    as_machine: Any = machine
    hearing.look(as_machine, KEYS)


def test_what_an_operator_heard_is_what_its_reading_grew_by() -> None:
    hearing = Hearing()
    look(hearing, Machine(None))
    assert (hearing.epoch, heard(hearing)) == (None, {})
    look(hearing, Machine(1, observed(0, {0: 0, 1: 20, 2: 0}), observed(1, {0: 20, 1: 0, 2: 20})))
    assert heard(hearing) == {(0, 1): 20, (0, 2): 0, (1, 0): 20, (1, 2): 20}
    # Operator 0 lagged behind what was settled of 2, was raised to it, and heard it since; 1 heard nobody.
    look(hearing, Machine(2, observed(0, {1: 20, 2: 30}), observed(1, {0: 20, 2: 20}), settled_s=10))
    assert heard(hearing) == {(0, 1): 0, (0, 2): 20, (1, 0): 0, (1, 2): 0}
    look(hearing, Machine(None))
    assert hearing.epoch == 2, "between two closes the last one stands"


def test_a_later_observation_of_the_same_epoch_is_taken_too() -> None:
    hearing = Hearing()
    look(hearing, Machine(1, observed(0, {1: 20})))
    look(hearing, Machine(1, observed(0, {1: 20}), observed(1, {0: 20})))
    assert heard(hearing) == {(0, 1): 20, (1, 0): 20}


def test_lines_are_whole_where_each_that_observed_heard_the_other() -> None:
    around = neighbours(3, 2)
    whole, broken = _lines(around)
    names = {node_key(i): i for i in range(5)}
    assert {(names[a], names[b]) for a, b in whole} == {
        (0, 1),
        (0, 2),
        (0, 3),
        (0, 4),
        (1, 2),
        (1, 3),
        (1, 4),
        (2, 3),
        (2, 4),
    }
    assert broken == [], "of two participants nobody says anything"
    whole, broken = _lines(neighbours(7, 0))
    assert [(a, b) for a, b in broken] == [(node_key(3), node_key(5))]
    assert len(whole) == 20
    assert _lines(neighbours(3, 0, away=(2,)))[0] == [(node_key(0), node_key(1))]


def test_this_node_comes_first_then_operators_by_weight_then_participants() -> None:
    operators = [key(i).public for i in range(1, 4)]
    roster = Roster(
        weights={operators[0]: 1, operators[1]: 5, operators[2]: 3},
        operators=frozenset(operators),
        participants=frozenset(key(i).public for i in range(60)),
    )
    shown = _shown(key(0).public, roster)
    assert shown[:4] == [key(0).public, operators[1], operators[2], operators[0]]
    assert len(shown) == looking.PEERS_SHOWN
    assert list(shown[4:]) == sorted(shown[4:])


# The doctor's process.


@dataclasses.dataclass
class FakeChild:
    """A process on memory streams, which answers as it is told to; None: it never answers."""

    answers: list[bytes | None]
    asked: int = 0
    is_killed: bool = False
    pid: int = 0

    def __post_init__(self) -> None:
        self.stdin: MemorySendStream
        self.stdout: MemoryReceiveStream
        self.stdin, self._questions = memory_stream_one_way_pair()
        self._replies, self.stdout = memory_stream_one_way_pair()
        self.stdin.send_all_hook = self._answer

    async def _answer(self) -> None:
        self.asked += 1
        reply = self.answers.pop(0) if self.answers else ANSWER
        if reply == b"":
            self._replies.close()
        elif reply is not None:
            await self._replies.send_all(reply)

    def kill(self) -> None:
        self.is_killed = True

    def poll(self) -> int | None:
        return -9 if self.is_killed else None

    async def wait(self) -> int:
        return -9


ANSWER = b'{"found_s":7,"epoch":3,"earns":true,"verdict":"you earn: all is well","findings":[],"fine":70,"unknown":1}\n'


class Doctor:
    """A `Diagnosing` with the children that it started; `answers` are those of each of them."""

    def __init__(self, *answers: list[bytes | None]) -> None:
        self.children: list[FakeChild] = []
        self._answers = list(answers)
        start: Any = self._start
        self.diagnosing = Diagnosing(Path("agent.toml"), start)

    async def _start(self) -> FakeChild:
        child = FakeChild(self._answers.pop(0) if self._answers else [])
        self.children.append(child)
        return child


async def test_the_doctor_looks_only_while_somebody_does(autojump_clock: object) -> None:
    doctor = Doctor()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(doctor.diagnosing.run)
        await trio.sleep(1000)
        assert doctor.children == []
        doctor.diagnosing.look()
        await trio.sleep(1)
        assert doctor.diagnosing.latest is not None
        assert (doctor.diagnosing.latest.verdict, doctor.diagnosing.latest.fine) == ("you earn: all is well", 70)
        assert doctor.diagnosing.latest.epoch == 3
        await trio.sleep(IDLE_S - 2)
        assert [(child.asked, child.is_killed) for child in doctor.children] == [(IDLE_S // INTERVAL_S, False)]
        await trio.sleep(1000)
        assert [(child.asked, child.is_killed) for child in doctor.children] == [(IDLE_S // INTERVAL_S, True)]
        doctor.diagnosing.look()
        await trio.sleep(1)
        assert len(doctor.children) == 2
        nursery.cancel_scope.cancel()
    assert doctor.children[1].is_killed


@pytest.mark.parametrize(
    ("answer_", "reason"),
    [
        (None, f"the doctor did not come to an end within {ROUND_S:.0f} s"),
        (b"", "the doctor ended without an answer"),
        (b"garbage\n", "the doctor's answer is none"),
        (b"{}\n", "the doctor's answer is none"),
        (ANSWER.replace(b"[]", json.dumps([{"severity": "x"}] * 65).encode()), "the doctor's answer is none"),
        (b"x" * (LINE_BYTES_MAX + 1), "the doctor's answer is too long"),
    ],
)
async def test_a_doctor_that_fails_is_ended_and_tried_again_later(
    answer_: bytes | None, reason: str, autojump_clock: object
) -> None:
    doctor = Doctor([ANSWER, answer_], [])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(doctor.diagnosing.run)
        for _ in range(12):
            doctor.diagnosing.look()
            await trio.sleep(10)
            if doctor.diagnosing.silence is not None:
                break
        assert reason in str(doctor.diagnosing.silence)
        assert doctor.diagnosing.latest is not None, "what was found before is kept"
        assert doctor.children[0].is_killed
        assert len(doctor.children) == 1
        doctor.diagnosing.look()
        await trio.sleep(INTERVAL_S + 1)
        assert (len(doctor.children), doctor.diagnosing.silence) == (2, None)
        nursery.cancel_scope.cancel()


def test_the_child_tells_the_worst_first_and_in_bounds() -> None:
    facts = told(sources=[{"source": "engine", "instance": 0, "error": "x" * 9000}], version="0.9")
    findings = diagnose(facts)
    told_ = answer(facts, findings, verdict(facts, findings))
    assert told_.earns is False
    assert [each.severity for each in told_.findings] == sorted(
        (each.severity for each in told_.findings), key=["problem", "warning", "note"].index
    )
    assert max(len(each.cause) for each in told_.findings) == 2000
    fine = answer(healthy(), diagnose(healthy()), verdict(healthy(), diagnose(healthy())))
    assert (fine.findings, fine.earns, fine.unknown) == ([], True, 0)


@pytest.mark.parametrize(
    ("facts", "epoch_"),
    [
        (healthy(), 1),
        (changed("journal", settled=None), 0),
        (changed("journal", settled=Unknown("no disk")), None),
        (dataclasses.replace(healthy(), journal=Unknown("no disk")), None),
    ],
)
def test_the_child_tells_the_last_epoch_that_it_saw(facts: Facts, epoch_: int | None) -> None:
    findings = diagnose(facts)
    assert answer(facts, findings, verdict(facts, findings)).epoch == epoch_


@pytest.mark.slow
async def test_the_real_child_answers_and_ends_with_its_input(tmp_path: Path) -> None:
    """It starts as it would in service; the settings are missing, which it says."""
    child = await start_child(tmp_path / "agent.toml")
    with trio.fail_after(60):
        assert child.stdin is not None
        assert child.stdout is not None
        line = b""
        await child.stdin.send_all(b"\n")
        while not line.endswith(b"\n"):
            chunk = await child.stdout.receive_some()
            assert chunk
            line += chunk
        found = json.loads(line)
        await child.stdin.aclose()
        assert await child.wait() == 0
    assert found["earns"] is False
    assert "agent.toml" in found["verdict"]


# What asking costs.


class Books:
    own: dict[str, Any] | None = None


def page_of(monkeypatch: pytest.MonkeyPatch, made: list[str], read: list[object]) -> Page:
    """A page whose parts are counted as they are made."""

    def draw(_: object) -> str:
        made.append("page")
        return f"page {len(made)}"

    def ledger(path: object, pool: object) -> Any:
        read.append(path)
        raise OperationError("ledger.sqlite: missing")

    monkeypatch.setattr(looking, "page", draw)
    monkeypatch.setattr(looking, "own_status", lambda agent, now_s: status())
    monkeypatch.setattr(looking, "read_ledger", ledger)
    monkeypatch.setattr(looking, "ledger_file", lambda config: "ledger.sqlite")
    health = SimpleNamespace(healthy=lambda: None, ready=lambda: None)
    agent: Any = SimpleNamespace(
        config=SimpleNamespace(path=Path("agent.toml")),
        pool=None,
        books=Books(),
        node=None,
        gossiping=None,
        health=health,
    )
    return Page(agent)


async def test_however_many_ask_the_page_is_made_once_in_a_moment(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    made: list[str] = []
    page = page_of(monkeypatch, made, [])
    assert [await page.html() for _ in range(50)] == ["page 1"] * 50
    await trio.sleep(FRESH_S)
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(page.html)
    await trio.sleep(LEDGER_RETRY_S)  # the ledger has to be read first, in a thread
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(page.html)
    assert made == ["page"] * 3


def test_how_far_a_close_came_is_kept_until_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    page, progress = page_of(monkeypatch, [], []), {"epoch": 3, "attested_weight": 0, "total_weight": 7}
    closing: list[Any] = []
    page._agent.node = SimpleNamespace(machine=SimpleNamespace(progress=closing.pop))
    for change in ({"attested_weight": 2}, {"attested_weight": 5}, None, {"epoch": 4, "total_weight": 0}):
        closing.append(None if change is None else SimpleNamespace(**{**progress, **change}))
        page.look()
    assert page._last_close == LastClose(epoch=3, attested_weight=5, total_weight=7)
    closing.append(SimpleNamespace(**{**progress, "epoch": 4}))
    page.look()
    assert page._last_close == LastClose(epoch=4, attested_weight=0, total_weight=7)


def test_an_operator_that_is_connected_and_said_no_version_is_not_in_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    page, roster_ = page_of(monkeypatch, [], []), Roster(operators=frozenset(KEYS), participants=frozenset(KEYS))
    view = {"connected": True, "last_heard_s": None, "rtt_s": None}
    gossiping: Any = SimpleNamespace(
        roster=roster_,
        transport=SimpleNamespace(peers=lambda: [SimpleNamespace(node_key=each, **view) for each in KEYS[1:]]),
        connected=lambda: [KEYS[1]],
    )
    page._agent.key, page._agent.gossiping = key(0), gossiping
    with monkeypatch.context() as patched:
        patched.setattr(trio, "current_time", lambda: 0.0)
        around = page._neighbours()
    assert (around.operators_connected, around.operators_unusable) == (2, 1)


async def test_the_ledger_is_read_until_it_has_the_epoch_that_settled(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    read: list[object] = []
    page = page_of(monkeypatch, [], read)
    monkeypatch.setattr(Books, "own", {"epoch": 3})
    await page.html()
    await trio.sleep(FRESH_S)
    await page.html()
    assert len(read) == 1, "it was read a moment ago"
    monkeypatch.setattr(page, "_last_epochs", lambda: (epoch(3),))
    await trio.sleep(LEDGER_RETRY_S)
    await page.html()
    assert [line.epoch for line in page._epochs] == [3]
    monkeypatch.setattr(page, "_last_epochs", lambda: (epoch(3), epoch(4)))
    await trio.sleep(1000)
    await page.html()
    assert len(page._epochs) == 1, "nothing is newer"
    monkeypatch.setattr(Books, "own", {"epoch": 4})
    await trio.sleep(FRESH_S)
    await page.html()
    assert len(page._epochs) == 2
