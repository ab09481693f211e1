"""How a registry entry comes to be what it is, and what can be done to it: shared by the registry's tests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from pytoniq_core import Builder, Slice

from contracts.commands import CancelSlash, Remove, SetReputation, Slash, SlashReason, Suspend
from contracts.model import DAY_S, NANO, Address, Participant, ParticipantStatus
from contracts.opcodes import Refusal
from contracts.signing import SigningKey
from tests.contracts.pool_scene import STAKE, Scene, Sent, account

APPEAL_S = 7 * DAY_S
WITHDRAWAL_S = 7 * DAY_S
EVIDENCE = bytes(range(32))
WORKER = account("worker")


def address_slice(address: Address) -> Slice:
    """An address as a get-method's argument."""
    builder = Builder().store_uint(0b100, 3).store_int(address.workchain, 8).store_bytes(address.account)
    return builder.end_cell().begin_parse()


def found(scene: Scene, owner: Address) -> Participant | None:
    """The entry of `owner`, if there is one."""
    return next((p for p in scene.registry_state().participants if p.address == owner), None)


# ---- certificates about an entry, the next ones in their order ----


def slash(scene: Scene, owner: Address, amount: int = 0) -> Sent:
    target = scene.target(owner)
    return scene.act(Slash(target=target, amount_nanoton=amount, reason=SlashReason.FORK, evidence_hash=EVIDENCE))


def cancel_slash(scene: Scene, owner: Address) -> Sent:
    return scene.act(CancelSlash(target=scene.target(owner)))


def suspend(scene: Scene, owner: Address, *, lift: bool = False) -> Sent:
    return scene.act(Suspend(target=scene.target(owner), suspended=not lift))


def remove(scene: Scene, owner: Address) -> Sent:
    return scene.act(Remove(target=scene.target(owner)))


def set_reputation(scene: Scene, owner: Address, reputation: int) -> Sent:
    return scene.act(SetReputation(target=scene.target(owner), reputation=reputation))


def rotate(scene: Scene, owner: Address) -> Sent:
    """Replace the node key by one that nobody else has."""
    return scene.rotate_node_key(owner, SigningKey(hashlib.sha256(b"next" + owner.account).digest()))


# ---- entries ----


def enter(scene: Scene, owner: Address, stake: int, *steps: Callable[[Scene, Address], Sent]) -> None:
    """Register `owner` and take these steps, which all succeed."""
    assert scene.register(owner, stake_nanoton=stake).refusal is None
    for step in steps:
        assert step(scene, owner).refusal is None


def ask(amount: int) -> Callable[[Scene, Address], Sent]:
    return lambda scene, owner: scene.request_withdrawal(owner, amount)


def add(amount: int) -> Callable[[Scene, Address], Sent]:
    return lambda scene, owner: scene.increase_stake(owner, amount)


def take(amount: int) -> Callable[[Scene, Address], Sent]:
    return lambda scene, owner: slash(scene, owner, amount)


def sweep(scene: Scene, owner: Address) -> Sent:
    """As soon as nobody can appeal."""
    return late(scene, APPEAL_S, lambda: scene.sweep_slashed(owner))


@dataclass(frozen=True)
class Situation:
    """An entry to begin with: stake at registration, and how it went on."""

    stake: int
    steps: tuple[Callable[[Scene, Address], Sent], ...] = ()

    def arrange(self, scene: Scene, owner: Address) -> None:
        enter(scene, owner, self.stake, *self.steps)


SITUATIONS = {
    "active": Situation(2 * STAKE),
    "active, half asked back": Situation(2 * STAKE, (ask(STAKE),)),
    "inactive, slashed below the minimum": Situation(STAKE, (slash,)),
    "inactive, what a slash left asked back": Situation(2 * STAKE, (ask(STAKE), take(STAKE))),
    "inactive, the same, slash swept": Situation(2 * STAKE, (ask(STAKE), take(STAKE), sweep)),
    "withdrawing": Situation(2 * STAKE, (ask(2 * STAKE),)),
    "withdrawing, slashed below the minimum": Situation(STAKE, (ask(STAKE), slash)),
    "withdrawing, some added": Situation(2 * STAKE, (ask(2 * STAKE), add(NANO))),
    "withdrawing, enough added": Situation(2 * STAKE, (ask(2 * STAKE), add(STAKE))),
    "suspended": Situation(2 * STAKE, (suspend,)),
    "suspended, all asked back": Situation(2 * STAKE, (ask(2 * STAKE), suspend)),
    "suspended, slashed below the minimum": Situation(STAKE, (suspend, slash)),
    "suspended, slashed to nothing": Situation(STAKE, (suspend, take(STAKE))),
    "slashed to nothing": Situation(STAKE, (take(STAKE),)),
    "removed": Situation(2 * STAKE, (remove,)),
}


Outcome = ParticipantStatus | Refusal | None


def outcome(scene: Scene, owner: Address, sent: Sent) -> Outcome:
    """Why it was refused, else the entry's status now, else None for an entry that has ended."""
    if sent.refusal is not None:
        return sent.refusal
    entry = found(scene, owner)
    return None if entry is None else entry.status


def late(scene: Scene, seconds: int, act: Callable[[], Sent]) -> Sent:
    """Let time pass, then act."""
    scene.advance(seconds)
    return act()


def remainder(scene: Scene, owner: Address) -> int:
    """What is staked and not asked back."""
    entry = scene.participant(owner)
    return entry.stake_nanoton - entry.pending_nanoton


OPERATIONS: dict[str, Callable[[Scene, Address], Sent]] = {
    "increase a little": add(NANO),
    "increase enough": add(10 * NANO),
    "ask for one nanoTON": ask(1),
    "ask for the minimum": ask(STAKE),
    "ask for the rest": lambda scene, owner: scene.request_withdrawal(owner, remainder(scene, owner)),
    "cancel": lambda scene, owner: scene.cancel_withdrawal(owner),
    "complete at once": lambda scene, owner: scene.complete_withdrawal(owner),
    "complete": lambda scene, owner: late(scene, WITHDRAWAL_S, lambda: scene.complete_withdrawal(owner)),
    "slash a share": slash,
    "slash all": take(1000 * STAKE),
    "cancel the slash": cancel_slash,
    "sweep at once": lambda scene, owner: scene.sweep_slashed(owner),
    "sweep": sweep,
    "set the reputation": lambda scene, owner: set_reputation(scene, owner, 900),
    "suspend": suspend,
    "lift the suspension": lambda scene, owner: suspend(scene, owner, lift=True),
    "remove": remove,
    "heartbeat": lambda scene, owner: scene.heartbeat(owner),
    "change the worker": lambda scene, owner: scene.update_worker(owner, WORKER),
    "replace the node key": rotate,
    "register again": lambda scene, owner: scene.register(owner),
}
