"""The onlooker: every epoch is noted once and in order, whatever it did not look at in time."""

import pytest
import trio
from devnet_history import SETTLE_AFTER_S, Agents, History, end_s, open_epoch, seats, settlements
from pool_fixture import participant
from trio.testing import MockClock

from agent.devnet.onlooker import POLL_S, STEPS_BACK_MAX, Onlooker
from agent.errors import OperationError
from contracts.errors import ChainUnavailableError
from gossip.settlement import encode_checkpoint

WALLETS = {participant(i).address: f"agent-{i}" for i in range(4)}


class Scene:
    """An onlooker between a chain and two agents that know everything that settled."""

    def __init__(self, epochs: int = 1) -> None:
        self.settled = settlements(epochs)
        self.chain = History(self.settled)
        self.agents = Agents()
        self.agents.adopt(*self.settled)
        self.said: list[str] = []
        self.onlooker = Onlooker(self.chain, self.chain, seats(), WALLETS, self.agents.client(), self.said.append)

    async def look(self, epoch: int, after_s: int) -> None:
        """Look `after_s` seconds after the end of `epoch`."""
        self.chain.now_s = end_s(epoch) + after_s
        await self.onlooker.look()


async def test_an_epoch_that_is_watched_needs_no_look_back() -> None:
    scene = Scene()
    await scene.look(1, 3)
    assert scene.onlooker.settled_epoch == 0
    await scene.look(1, SETTLE_AFTER_S)
    await scene.look(1, SETTLE_AFTER_S + 1)
    landing = scene.onlooker.landings[1]
    assert landing.settlement == scene.settled[0]
    assert (landing.pot, landing.after_s) == (open_epoch(1), SETTLE_AFTER_S)
    assert (landing.submitter, landing.transaction) == ("agent-1", bytes([1]) * 32)
    assert scene.chain.looked_back == []
    assert [text.split(",")[0] for text in scene.said] == ["epoch 1 finalized", "epoch 1 settled 9 s after its end"]


async def test_a_missed_finalization_is_read_from_the_past() -> None:
    scene = Scene()
    await scene.look(1, SETTLE_AFTER_S + 20)
    assert scene.onlooker.landings[1].pot == open_epoch(1)
    assert scene.onlooker.landings[1].after_s == SETTLE_AFTER_S


async def test_epochs_that_settled_between_two_looks_are_all_noted() -> None:
    scene = Scene(epochs=3)
    await scene.look(3, SETTLE_AFTER_S + 1)
    landings = scene.onlooker.landings
    assert list(landings) == [1, 2, 3]
    assert [each.settlement for each in landings.values()] == scene.settled
    assert [each.pot for each in landings.values()] == [open_epoch(k) for k in (1, 2, 3)]
    assert [each.after_s for each in landings.values()] == [SETTLE_AFTER_S] * 3
    assert [each.transaction for each in landings.values()] == [bytes([k]) * 32 for k in (1, 2, 3)]


async def test_settlements_wait_until_an_agent_answers() -> None:
    scene = Scene(epochs=2)
    scene.agents.down = {1000, 1001}
    await scene.look(2, SETTLE_AFTER_S)
    assert scene.onlooker.settled_epoch == 0
    scene.agents.down = {1000}
    await scene.look(2, SETTLE_AFTER_S + 5)
    assert scene.onlooker.settled_epoch == 2


async def test_an_older_settlement_that_no_agent_has_yet_holds_back_the_newer_one() -> None:
    scene = Scene(epochs=2)
    first, _ = scene.settled
    held = scene.agents.checkpoints.pop(first.payload_hash.hex())
    await scene.look(2, SETTLE_AFTER_S)
    assert scene.onlooker.settled_epoch == 0
    scene.agents.checkpoints[first.payload_hash.hex()] = held
    await scene.look(2, SETTLE_AFTER_S)
    assert list(scene.onlooker.landings) == [1, 2]


async def test_a_checkpoint_that_is_not_what_landed_is_not_taken() -> None:
    scene = Scene(epochs=2)
    first, second = scene.settled
    scene.agents.checkpoints[first.payload_hash.hex()] = encode_checkpoint(second)
    await scene.look(1, SETTLE_AFTER_S)
    assert scene.onlooker.settled_epoch == 0


async def test_a_chain_that_goes_away_leaves_nothing_half_noted() -> None:
    scene = Scene()
    scene.chain.is_away = True
    with pytest.raises(ChainUnavailableError):
        await scene.look(1, 3)
    assert not scene.onlooker.pots
    scene.chain.is_away = False
    await scene.look(1, SETTLE_AFTER_S + 30)
    assert list(scene.onlooker.landings) == [1]


async def test_a_pot_that_the_past_does_not_show_ends_the_search() -> None:
    scene = Scene()
    scene.chain.is_forgetful = True
    with pytest.raises(OperationError, match="epoch 1"):
        await scene.look(1, SETTLE_AFTER_S)
    assert len(scene.chain.looked_back) == STEPS_BACK_MAX


def status(chain_error: str | None = None, engine_error: str | None = None) -> dict[str, object]:
    return {"chain": {"error": chain_error}, "work": {"error": engine_error, "tokens": 5}}


async def test_agents_that_fall_silent_are_down_and_keep_their_last_status(autojump_clock: MockClock) -> None:
    scene = Scene()
    scene.agents.statuses = {1000: status(), 1001: "not a status"}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.onlooker.poll_agents)
        await trio.sleep(POLL_S / 2)
        assert scene.onlooker.down == {"agent-1"}
        scene.agents.statuses[1001] = status("connect call failed")
        scene.agents.statuses[1000] = status("connect call failed", "engine refused")
        await trio.sleep(3 * POLL_S)
        assert scene.onlooker.down == set()
        scene.agents.down = {1000}
        await trio.sleep(POLL_S)
        assert scene.onlooker.down == {"agent-0"}
        nursery.cancel_scope.cancel()
    assert scene.onlooker.statuses["agent-0"] == status("connect call failed", "engine refused")
    assert scene.said == ["agent-0: connect call failed", "agent-0: engine refused"], "each trouble is told once"


async def test_an_agent_has_caught_up_when_it_adopted_what_was_noted() -> None:
    scene = Scene()
    await scene.look(1, SETTLE_AFTER_S)
    scene.onlooker.statuses = {f"agent-{k}": {"settled": {"adopted_epoch": k}} for k in (0, 1, 2)}
    scene.onlooker.statuses["agent-3"] = {"settled": None}
    scene.onlooker.down = {"agent-2"}
    assert [scene.onlooker.has_caught_up(f"agent-{k}") for k in range(5)] == [False, True, False, False, False]
