"""Who vouches for work in a dev network: the gateway's receipts, when the proxy pays; and how an agent is stopped."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import trio
from devnet_history import seats
from pool_fixture import POOL, key
from trio.testing import MockClock

from agent.devnet.gateway import INTERVAL_S, Gateway
from agent.devnet.onlooker import Onlooker
from agent.devnet.processes import Child, start
from agent.devnet.proxy import is_paid_in, is_read
from agent.devnet.stopping import stop_now_and_then
from gossip.errors import InvalidMessageError
from gossip.receipts import require_receipt
from gossip.records import RECEIPTS_MAX, Receipt

ENGINE = "http://engine/metrics"


@dataclass
class Places:
    """An engine that served 10 tokens in each of `served`, and an agent that takes what `signer` signed."""

    signer: bytes
    served: list[int]
    is_up: bool = True
    taken: list[Receipt] = field(default_factory=list)
    refused: int = 0

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/devnet/served":
            after_s = int(request.url.params["after_s"])
            return httpx.Response(200, json={"served": [[s, 10] for s in self.served if s > after_s]})
        if not self.is_up:
            raise httpx.ConnectError("refused", request=request)
        claims = json.loads(request.content)["receipts"]
        assert len(claims) <= RECEIPTS_MAX
        refused = {str(i): "signer" for i, claim in enumerate(claims) if not self._holds(_receipt(claim))}
        self.refused += len(refused)
        self.taken += [_receipt(claim) for i, claim in enumerate(claims) if str(i) not in refused]
        return httpx.Response(422 if refused else 200, json={"refused": refused})

    def _holds(self, receipt: Receipt) -> bool:
        if receipt.signer != self.signer:
            return False
        try:
            require_receipt(POOL, key(0).public, receipt)
        except InvalidMessageError:
            return False
        return True


def _receipt(claim: dict[str, Any]) -> Receipt:
    signer, job_id, signature = (bytes.fromhex(claim[name]) for name in ("signer", "job_id", "signature"))
    return Receipt(signer=signer, job_id=job_id, time_s=claim["time_s"], tokens=claim["tokens"], signature=signature)


def scene(served: list[int]) -> tuple[Gateway, Places, list[str]]:
    said: list[str] = []
    gateway = Gateway(key(9), said.append)
    return gateway, Places(key(9).public, served), said


async def run_for(gateway: Gateway, places: Places, rounds: int, *, is_forged: bool = False) -> None:
    (seat,) = seats(1)
    async with places.client() as http:
        with trio.move_on_after((rounds + 0.5) * INTERVAL_S):
            await gateway.run(http, POOL, [(seat, ENGINE)], seat if is_forged else None)


async def test_each_second_is_signed_for_once(autojump_clock: MockClock) -> None:
    gateway, places, _ = scene([100, 101])
    await run_for(gateway, places, 3)
    assert [(r.time_s, r.tokens) for r in places.taken] == [(100, 10), (101, 10)]
    assert gateway.signed == {"agent-0": 20}
    assert gateway.forged == 0


async def test_an_agent_that_is_away_gets_its_receipts_later(autojump_clock: MockClock) -> None:
    gateway, places, _ = scene(list(range(1, RECEIPTS_MAX + 51)))
    places.is_up = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_for, gateway, places, 6)
        await trio.sleep(3.5 * INTERVAL_S)
        assert gateway.signed == {}
        places.is_up = True
    assert len({receipt.id for receipt in places.taken}) == len(places.taken) == RECEIPTS_MAX + 50
    assert gateway.signed == {"agent-0": 10 * (RECEIPTS_MAX + 50)}


async def test_forgeries_are_handed_in_and_counted_apart(autojump_clock: MockClock) -> None:
    gateway, places, said = scene([100, 101])
    await run_for(gateway, places, 2, is_forged=True)
    assert gateway.signed == {"agent-0": 20}
    assert (gateway.forged, gateway.forged_taken, places.refused) == (4, 0, 4)
    assert said == ["agent-0 refused a forged receipt: signer"]


# When the proxy pays.


def test_the_contracts_are_read_once_every_operator_has_said_so() -> None:
    silent: dict[str, Any] = {"agent-0": {"close": None}, "agent-1": {"close": {"epoch": 1, "observations": 3}}}
    assert not is_read(silent, 0, 4)
    assert is_read(silent, 1, 4), "it has settled without the fourth"
    assert is_read(silent | {"agent-2": {"close": {"epoch": 1, "observations": 4}}}, 0, 4)
    assert not is_read({"agent-0": {"close": {"epoch": 2, "observations": 4}}}, 0, 4)


@pytest.mark.parametrize(
    ("epoch", "left_s", "agents", "expected"),
    [(2, 1, 4, True), (3, 9, 4, True), (3, 8, 4, False), (3, 12, 9, False), (3, 13, 9, True), (4, 20, 4, False)],
)
def test_nothing_is_paid_that_the_last_epoch_would_not_credit(
    epoch: int, left_s: float, agents: int, expected: bool
) -> None:
    assert is_paid_in(epoch, left_s, last_epoch=3, agents=agents) is expected


# An agent that is stopped.


async def test_a_paused_child_stands_still_and_can_still_be_ended(tmp_path: Path) -> None:
    program = "import json, time; print(json.dumps({}), flush=True); time.sleep(60)"
    child = await start("agent", ["-c", program], tmp_path / "agent.log", reads_ready=True)
    await child.read_ready()
    child.resume()  # nothing to resume
    child.pause()
    child.pause()
    await child.stop()
    assert child.code == -signal.SIGTERM


@dataclass
class Stoppable:
    """An agent's process that writes down what is done to it."""

    name: str = "agent-3"
    is_paused: bool = False
    changes: list[tuple[float, bool]] = field(default_factory=list)

    def pause(self) -> None:
        self._become(True)

    def resume(self) -> None:
        self._become(False)

    def _become(self, is_paused: bool) -> None:
        if is_paused != self.is_paused:
            self.is_paused = is_paused
            self.changes.append((trio.current_time(), is_paused))


@dataclass
class Epochs:
    """Epochs of 20 s from time 0 on."""

    @property
    def rewards(self) -> Any:
        epoch = int(trio.current_time() // 20) + 1
        return SimpleNamespace(current_epoch=epoch, current_end_s=20 * epoch)

    def has_worked(self, name: str) -> bool:
        return True


@pytest.mark.parametrize(
    ("strategy", "changes"),
    [
        ("uptime", [(5, True), (15, False), (25, True), (35, False)]),
        ("withhold", [(12, True), (30, False), (32, True), (50, False)]),
    ],
)
async def test_an_agent_is_stopped_in_each_epoch_and_runs_in_the_end(
    strategy: str, changes: list[tuple[float, bool]], autojump_clock: MockClock
) -> None:
    agent = Stoppable()
    with trio.move_on_after(100):
        child: Child = agent  # type: ignore[assignment]
        onlooker: Onlooker = Epochs()  # type: ignore[assignment]
        await stop_now_and_then(strategy, child, onlooker, 20, lambda: 2, now_s=trio.current_time)
    assert agent.changes == changes
    assert not agent.is_paused
