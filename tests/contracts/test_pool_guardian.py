"""Paused, closed, and stopped by the guardian: which of the pool's operations go on, and which are refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from pytoniq_core import Cell

from contracts import layout
from contracts.commands import (
    CancelProposal,
    CancelSlash,
    Close,
    Command,
    FeesTo,
    OwnerMessage,
    Pause,
    ProposeParams,
    ProposeUpgrade,
    Remove,
    Resume,
    SetMetadata,
    SetRegistration,
    SetReputation,
    Slash,
    SlashReason,
    Suspend,
)
from contracts.model import (
    DAY_S,
    NANO,
    ZERO_HASH,
    CertificateKind,
    PoolMetadata,
    PoolStatus,
    UpgradeTarget,
)
from contracts.opcodes import Event, Refusal
from contracts.proof import TotalsTree
from tests.contracts.pool_scene import (
    ANYONE,
    GUARDIAN,
    OWNER,
    PARAMS,
    PARTICIPANTS,
    STAKE,
    Scene,
    Sent,
    leaf,
    node_key,
)

GUARDED = replace(PARAMS, emergency=True, guardian=GUARDIAN)
FORTNIGHT = 14 * DAY_S
UNTIL_RESUMED = 2**32 - 1
ALICE, BOB, CAROL = PARTICIPANTS[:3]


class Busy(Scene):
    """A guarded pool in which every operation has something to do."""

    tree: TotalsTree

    def prepare(self) -> None:
        assert self.deploy(GUARDED).refusal is None
        self.hand_over()
        for owner in (ALICE, BOB):
            assert self.register(owner).refusal is None
        self.finish_epoch()
        self.tree = self.settle_shares({ALICE: 50 * NANO, BOB: 20 * NANO})
        slash = Slash(target=self.target(BOB), amount_nanoton=NANO, reason=SlashReason.FORK, evidence_hash=ZERO_HASH)
        assert self.command(slash).refusal is None
        assert self.request_withdrawal(ALICE, STAKE).refusal is None
        self.finish_epoch()
        assert self.propose_set(self.new_set(2)).refusal is None
        for command in (
            ProposeParams(gov_seqno=2, params=GUARDED),
            ProposeUpgrade(
                gov_seqno=3, target=UpgradeTarget.REGISTRY, code_hash=layout.code("participant_registry").hash
            ),
        ):
            assert self.command(command).refusal is None
        self.advance(8 * DAY_S)
        self.pay(NANO)


@pytest.fixture
def busy() -> Busy:
    scene = Busy()
    scene.prepare()
    return scene


def pause_by_command(scene: Scene) -> None:
    assert scene.act(Pause(gov_seqno=scene.gov_seqno)).refusal is None


def pause_by_guardian(scene: Scene) -> None:
    assert scene.guardian_pause().refusal is None


Operation = Callable[[Busy], Sent]
BY_PAUSE = {"command": pause_by_command, "guardian": pause_by_guardian}


def slash_alice(scene: Busy) -> Sent:
    target = scene.target(ALICE)
    return scene.command(Slash(target=target, amount_nanoton=NANO, reason=SlashReason.FORK, evidence_hash=ZERO_HASH))


STOPPED: dict[str, tuple[Operation, Refusal]] = {
    "settle": (lambda s: s.settle([leaf(ALICE, 60 * NANO), leaf(BOB, 20 * NANO)]), Refusal.POOL_PAUSED),
    "slash": (slash_alice, Refusal.POOL_PAUSED),
    "fees_to": (
        lambda s: s.command(FeesTo(gov_seqno=s.gov_seqno, recipient=ANYONE, amount_nanoton=1)),
        Refusal.POOL_PAUSED,
    ),
    "owner_message": (
        lambda s: s.command(OwnerMessage(gov_seqno=s.gov_seqno, dest=ANYONE, value_nanoton=1, body=Cell.empty())),
        Refusal.POOL_PAUSED,
    ),
    "register": (lambda s: s.register(CAROL), Refusal.POOL_PAUSED),
    "apply_upgrade": (lambda s: s.apply_upgrade(layout.code("participant_registry")), Refusal.POOL_PAUSED),
    "increase_stake": (lambda s: s.increase_stake(BOB, NANO), Refusal.CONTRIBUTIONS_PAUSED),
    "update_contribution": (lambda s: s.update_contribution(ALICE, 1, s.tree), Refusal.CONTRIBUTIONS_PAUSED),
}
GOES_ON: dict[str, Operation] = {
    "claim": lambda s: s.claim(ALICE, s.tree),
    "push": lambda s: s.push([ALICE, BOB], s.tree),
    "finalize": lambda s: s.finalize(),
    "payment": lambda s: s.pay(NANO),
    "request_withdrawal": lambda s: s.request_withdrawal(BOB, STAKE - NANO),
    "cancel_withdrawal": lambda s: s.cancel_withdrawal(ALICE),
    "complete_withdrawal": lambda s: s.complete_withdrawal(ALICE),
    "sweep_slashed": lambda s: s.sweep_slashed(BOB),
    "heartbeat": lambda s: s.heartbeat(BOB),
    "worker": lambda s: s.update_worker(BOB, ANYONE),
    "rotate the node key": lambda s: s.rotate_node_key(BOB, node_key(CAROL)),
    "propose_set": lambda s: s.propose_set(s.new_set(2)),
    "accept_set": lambda s: s.accept_set(s.new_set(2)),
    "propose_params": lambda s: s.command(ProposeParams(gov_seqno=s.gov_seqno, params=GUARDED)),
    "apply_params": lambda s: s.apply_params(),
    "propose_upgrade": lambda s: s.command(
        ProposeUpgrade(gov_seqno=s.gov_seqno, target=UpgradeTarget.POOL, code_hash=ZERO_HASH)
    ),
    "cancel": lambda s: s.command(CancelProposal(gov_seqno=s.gov_seqno, proposal=CertificateKind.PROPOSE_PARAMS)),
    "remove": lambda s: s.command(Remove(target=s.target(BOB))),
    "suspend": lambda s: s.command(Suspend(target=s.target(BOB), suspended=True)),
    "reputation": lambda s: s.command(SetReputation(target=s.target(BOB), reputation=1)),
    "pause": lambda s: s.command(Pause(gov_seqno=s.gov_seqno)),
    "resume": lambda s: s.command(Resume(gov_seqno=s.gov_seqno)),
    "close": lambda s: s.command(Close(gov_seqno=s.gov_seqno)),
    "registration": lambda s: s.command(SetRegistration(gov_seqno=s.gov_seqno, open=True)),
    "metadata": lambda s: s.command(SetMetadata(gov_seqno=s.gov_seqno, metadata=PoolMetadata(name="new"))),
    "top_up": lambda s: s.send(ANYONE, s.pool, NANO, layout.top_up_body()),
}


@pytest.mark.parametrize("by", BY_PAUSE)
@pytest.mark.parametrize("name", STOPPED)
def test_what_a_pause_stops(busy: Busy, by: str, name: str) -> None:
    operation, refusal = STOPPED[name]
    BY_PAUSE[by](busy)
    before = busy.pool_state(), busy.registry_state(), busy.state()
    assert operation(busy).refusal is refusal
    assert (busy.pool_state(), busy.registry_state(), busy.state()) == before


@pytest.mark.parametrize("name", STOPPED)
def test_what_a_pause_stops_goes_on_after_the_resume(busy: Busy, name: str) -> None:
    pause_by_guardian(busy)
    pause_by_command(busy)
    assert busy.command(Resume(gov_seqno=busy.gov_seqno)).refusal is None
    assert STOPPED[name][0](busy).refusal is None


@pytest.mark.parametrize("name", STOPPED)
def test_a_guardians_pause_ends_by_itself(busy: Busy, name: str) -> None:
    pause_by_guardian(busy)
    busy.advance(FORTNIGHT - 1)
    operation, refusal = STOPPED[name]
    assert operation(busy).refusal is refusal
    busy.advance(1)
    assert operation(busy).refusal is None


@pytest.mark.parametrize("by", BY_PAUSE)
@pytest.mark.parametrize("name", GOES_ON)
def test_trap_13_a_pause_never_stops(busy: Busy, by: str, name: str) -> None:
    BY_PAUSE[by](busy)
    assert GOES_ON[name](busy).refusal is None


def test_a_slash_can_be_taken_back_while_paused(busy: Busy) -> None:
    assert slash_alice(busy).refusal is None
    pause_by_command(busy)
    assert busy.command(CancelSlash(target=busy.target(ALICE))).refusal is None


# ---- pause and resume ----


def state_shown(scene: Scene) -> PoolStatus:
    return PoolStatus(scene.get(scene.pool, "get_pool_info")[3])


def test_pause_and_resume_by_command(ready: Scene) -> None:
    sent = ready.command(Pause(gov_seqno=1))
    assert [(e.op, e.values) for e in sent.events] == [(Event.EVENT_POOL_PAUSED, {"until": UNTIL_RESUMED})]
    pool = ready.pool_state()
    assert (pool.status, pool.paused_until_s, pool.gov_seqno) == (PoolStatus.PAUSED, 0, 1)
    assert ready.registry_state().paused_until_s == UNTIL_RESUMED
    assert state_shown(ready) is PoolStatus.PAUSED
    sent = ready.command(Resume(gov_seqno=2))
    assert [e.op for e in sent.events] == [Event.EVENT_POOL_RESUMED]
    assert ready.pool_state().status is PoolStatus.ACTIVE
    assert ready.registry_state().paused_until_s == 0
    assert state_shown(ready) is PoolStatus.ACTIVE


def test_telling_the_registry_costs_the_submitter_and_nobody_else(ready: Scene) -> None:
    balances = ready.balance(ready.pool), ready.balance(ready.registry)
    for command in (Pause(gov_seqno=1), Resume(gov_seqno=2), Close(gov_seqno=3)):
        sent = ready.command(command, value=NANO)
        assert sent.received(ANYONE) > NANO - NANO // 30
    assert (ready.balance(ready.pool), ready.balance(ready.registry)) == balances


# ---- guardian ----


def test_the_guardian_pauses_once_until_a_resume() -> None:
    scene = Scene()
    assert scene.deploy(GUARDED).refusal is None
    scene.hand_over()
    sent = scene.guardian_pause()
    until = scene.ledger.now + FORTNIGHT
    assert [(e.op, e.values) for e in sent.events] == [(Event.EVENT_POOL_PAUSED, {"until": until})]
    assert (scene.pool_state().paused_until_s, scene.registry_state().paused_until_s) == (until, until)
    assert scene.pool_state().status is PoolStatus.ACTIVE
    assert state_shown(scene) is PoolStatus.PAUSED
    assert scene.get(scene.pool, "get_governance")[2] == until
    assert scene.guardian_pause().refusal is Refusal.ALREADY_PAUSED
    scene.advance(FORTNIGHT)
    assert state_shown(scene) is PoolStatus.ACTIVE
    assert scene.guardian_pause().refusal is Refusal.ALREADY_PAUSED, "disarmed until the operators say otherwise"
    assert scene.command(Resume(gov_seqno=1)).refusal is None
    assert scene.guardian_pause().refusal is None


@pytest.mark.parametrize(
    ("params", "source"),
    [(GUARDED, ANYONE), (GUARDED, OWNER), (replace(GUARDED, emergency=False), GUARDIAN), (PARAMS, GUARDIAN)],
    ids=["a stranger", "the owner", "not armed", "no guardian"],
)
def test_nobody_but_an_armed_guardian(params: object, source: object) -> None:
    scene = Scene()
    assert scene.deploy(params).refusal is None
    sent = scene.guardian_pause(source=source)
    assert sent.refusal is Refusal.NOT_GUARDIAN
    assert sent.received(source) > NANO // 5 - NANO // 50
    assert scene.pool_state().paused_until_s == 0


def test_an_armed_pool_without_a_guardian() -> None:
    scene = Scene()
    assert scene.deploy(replace(PARAMS, emergency=True)).refusal is None
    assert scene.guardian_pause().refusal is Refusal.NOT_GUARDIAN


def test_the_guardian_pays_for_it() -> None:
    scene = Scene()
    assert scene.deploy(GUARDED).refusal is None
    least = 70_000 * 400 + NANO // 50
    assert scene.guardian_pause(value=least - 1).refusal is Refusal.INSUFFICIENT_VALUE
    assert scene.guardian_pause(value=least).refusal is None


def test_a_pause_by_command_outlasts_the_guardians() -> None:
    scene = Scene()
    assert scene.deploy(GUARDED).refusal is None
    pause_by_guardian(scene)
    pause_by_command(scene)
    assert scene.registry_state().paused_until_s == UNTIL_RESUMED
    scene.advance(FORTNIGHT)
    assert scene.register(ALICE).refusal is Refusal.POOL_PAUSED
    assert scene.owner_command(Resume(gov_seqno=2)).refusal is None
    assert (scene.pool_state().status, scene.pool_state().paused_until_s) == (PoolStatus.ACTIVE, 0)
    assert scene.register(ALICE).refusal is None


def test_a_guardians_pause_during_one_by_command() -> None:
    scene = Scene()
    assert scene.deploy(GUARDED).refusal is None
    pause_by_command(scene)
    pause_by_guardian(scene)
    assert scene.registry_state().paused_until_s == UNTIL_RESUMED


# ---- closed ----

OF_A_CLOSED_POOL: list[Callable[[int], Command]] = [
    lambda seqno: Pause(gov_seqno=seqno),
    lambda seqno: Resume(gov_seqno=seqno),
    lambda seqno: Close(gov_seqno=seqno),
    lambda seqno: SetRegistration(gov_seqno=seqno, open=True),
    lambda seqno: SetRegistration(gov_seqno=seqno, open=False),
]


def test_closed_is_for_ever(busy: Busy) -> None:
    sent = busy.command(Close(gov_seqno=4))
    assert [e.op for e in sent.events] == [Event.EVENT_POOL_CLOSED]
    assert (busy.pool_state().status, busy.pool_state().registration_open) == (PoolStatus.CLOSED, False)
    for make in OF_A_CLOSED_POOL:
        assert busy.command(make(5)).refusal is Refusal.POOL_CLOSED
    assert busy.register(CAROL).refusal is Refusal.POOL_CLOSED
    assert state_shown(busy) is PoolStatus.CLOSED


STILL = [name for name in STOPPED if name != "register"]
STILL_TOO = [name for name in GOES_ON if name not in ("pause", "resume", "close", "registration")]


@pytest.mark.parametrize("name", STILL + STILL_TOO)
def test_a_closed_pool_pays_what_it_owes_and_keeps_its_rules(busy: Busy, name: str) -> None:
    assert busy.command(Close(gov_seqno=4)).refusal is None
    operation = STOPPED[name][0] if name in STOPPED else GOES_ON[name]
    assert operation(busy).refusal is None


def test_the_guardian_stops_the_settlements_of_a_closed_pool(busy: Busy) -> None:
    assert busy.command(Close(gov_seqno=4)).refusal is None
    pause_by_guardian(busy)
    assert STOPPED["settle"][0](busy).refusal is Refusal.POOL_PAUSED
    assert state_shown(busy) is PoolStatus.CLOSED
    sent = busy.command(Resume(gov_seqno=5))
    assert sent.refusal is None
    assert (busy.pool_state().status, busy.pool_state().paused_until_s) == (PoolStatus.CLOSED, 0)
    assert STOPPED["settle"][0](busy).refusal is None


def test_closing_ends_a_pause_by_command(busy: Busy) -> None:
    pause_by_command(busy)
    assert busy.command(Close(gov_seqno=busy.gov_seqno)).refusal is None
    assert busy.registry_state().paused_until_s == 0
    assert STOPPED["settle"][0](busy).refusal is None
