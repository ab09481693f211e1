"""What may be sent to a pool by anyone who needs nobody's signature: honestly, beyond a limit, or to harm it."""

from __future__ import annotations

from typing import Any

from pytoniq_core import Builder

from contracts import commands, fees, layout
from contracts.errors import InvalidValueError
from contracts.model import (
    DAY_S,
    HOUR_S,
    NANO,
    PinnedTerms,
)
from contracts.opcodes import Op
from contracts.signing import SigningKey
from tests.contracts.fuzz_commands import command, target_of
from tests.contracts.fuzz_world import MIN_STAKE, PARAMS, STRANGER, Actions, World, adding_to
from tests.contracts.pool_scene import (
    PARTICIPANTS,
    POLICY,
    Sent,
    leaf,
    node_key,
)

ACTIONS: Actions = []
action = adding_to(ACTIONS)


# ---- participants ----


@action(14)
def register(world: World) -> Sent:
    owner = world.rng.choice(PARTICIPANTS)
    stake = world.around(MIN_STAKE, 3 * MIN_STAKE, 5 * MIN_STAKE)
    over: dict[str, Any] = {} if world.often() else {"key": node_key(world.rng.choice(PARTICIPANTS))}
    if not world.often(97):
        over["signature"] = bytes(64)
    if not world.often(95):
        over["value"] = stake + world.rng.randrange(fees.REGISTRATION_NANOTON)
    return world.scene.register(owner, stake_nanoton=stake, **over)


@action(5)
def increase_stake(world: World) -> Sent:
    amount = world.around(0, 1, MIN_STAKE)
    value = None if world.often() else world.rng.randrange(amount + fees.ENTRY_NANOTON)
    return world.scene.increase_stake(world.member(), amount, value=value)


@action(10)
def request_withdrawal(world: World) -> Sent:
    owner = world.member()
    entry = next((p for p in world.scene.registry_state().participants if p.address == owner), None)
    stake = 0 if entry is None else entry.stake_nanoton - entry.pending_nanoton
    return world.scene.request_withdrawal(owner, world.around(0, stake, stake, max(stake - MIN_STAKE, 0)))


@action(3)
def cancel_withdrawal(world: World) -> Sent:
    return world.scene.cancel_withdrawal(world.member())


@action(10)
def complete_withdrawal(world: World) -> Sent:
    return world.scene.complete_withdrawal(world.member(), source=world.anyone())


@action(3)
def heartbeat(world: World) -> Sent:
    return world.scene.heartbeat(world.member())


@action(2)
def update_worker(world: World) -> Sent:
    return world.scene.update_worker(world.member(), world.rng.choice([None, STRANGER]))


@action(4)
def rotate_node_key(world: World) -> Sent:
    """By a key of a small number, so that some are taken and some come again."""
    owner, key = world.member(), SigningKey(bytes([world.rng.randrange(12)]) * 32)
    over: dict[str, Any] = {} if world.often(95) else {"signature": bytes(64)}
    source = owner if world.often(95) else world.anyone()
    return world.scene.rotate_node_key(owner, key, source=source, **over)


@action(5)
def sweep_slashed(world: World) -> Sent:
    return world.scene.sweep_slashed(world.member(), source=world.anyone())


@action(6)
def update_contribution(world: World) -> Sent | None:
    known = world.tree()
    if known is None:
        return None
    epoch, tree, leaves = known
    proven, named = world.rng.choice(leaves).participant, world.member()
    owner = proven if world.often(80) else named
    body = layout.update_contribution_body(owner, epoch if world.often() else epoch + 1, tree.prove(proven))
    return world.scene.to_registry(body, source=world.anyone())


# ---- epochs ----


@action(12)
def pay(world: World) -> Sent:
    op = world.rng.choice([Op.DISTRIBUTION_RECEIVE_PAYMENT, Op.PAYOUT, Op.COCOON_EXCESSES, Op.TOP_UP])
    body = layout.body_cell(op) if world.often(80) else Builder().store_uint(0, 32).store_bytes(b"hello").end_cell()
    body = body if world.often() else Builder().end_cell()
    value = world.rng.choice([1, fees.PAYMENT_NANOTON, NANO, 50 * NANO, 200 * NANO])
    return world.scene.send(world.anyone(), world.scene.rewards, value + world.rng.randrange(3), body)


@action(10)
def finalize(world: World) -> Sent:
    if world.often(80):
        world.scene.ledger.advance(max(world.scene.ledger.now, world.scene.state().current_end_s))
    return world.scene.finalize()


@action(18)
def settle(world: World) -> Sent | None:
    """Earnings grow by what the pot holds, or a nanoTON more; anything else of the payload may be wrong."""
    state = world.scene.state()
    if not state.open_epochs or world.scene.pool_state().phase == 0:
        return None
    earned = {item.participant: item.earned_nanoton for item in world.landed[-1][1]} if world.landed else {}
    left = state.open_epochs[0].pot_nanoton + (0 if world.often(95) else 1)
    for participant in world.rng.sample(PARTICIPANTS, world.rng.randrange(5)):
        share = left if world.often(20) else world.rng.randrange(left + 1)
        earned[participant] = earned.get(participant, 0) + share
        left -= share
    leaves = tuple(leaf(participant, amount) for participant, amount in sorted(earned.items(), key=str))
    over: dict[str, Any] = {} if world.often(85) else world.rng.choice(_WRONG_PAYLOADS)
    epoch = state.landed.epoch + 1
    sent = command(world, world.scene.payload(leaves, **over), set_id=_settling_set(world, state.open_epochs[0].set_id))
    if world.scene.state().landed.epoch == epoch:
        world.landed.append((epoch, leaves))
        world.scene.books.know(leaves, world.scene.payload(leaves))
    return sent


def _settling_set(world: World, pinned: int) -> int:
    """The set that is pinned to the epoch or, if it is lost, the current one, mostly after its three days."""
    pool = world.scene.pool_state()
    if pool.set_of(pinned) is not None:
        return pinned
    if pinned > 0 and world.often(70):
        world.scene.advance(3 * DAY_S)
    return world.scene.domain.set_id


_WRONG_PAYLOADS: tuple[dict[str, Any], ...] = (
    {"prev": bytes(32)},
    {"epoch": 1},
    {"epoch": 1000},
    {"total_earned_nanoton": 0},
    {"count": 0},
    {"total_score": 0},
    {"policy_hash": bytes(32)},
)


@action(16)
def claim(world: World) -> Sent | None:
    known = world.tree()
    if known is None:
        return None
    _, tree, leaves = known
    proven = world.rng.choice(leaves).participant
    named = proven if world.often(95) else world.member()
    body = layout.claim_body(named, tree.prove(proven))
    value = fees.CLAIM_NANOTON if world.often(95) else world.rng.randrange(fees.CLAIM_NANOTON)
    return world.scene.send(proven if world.often(50) else world.anyone(), world.scene.rewards, value, body)


@action(8)
def push(world: World) -> Sent | None:
    known = world.tree()
    if known is None:
        return None
    _, tree, leaves = known
    proven = [world.rng.choice(leaves).participant for _ in range(world.rng.randrange(1, 6))]
    named = proven if world.often(95) else [*proven, world.member()]
    body = layout.push_body(named, tree.prove_many(proven))
    value = fees.push_nanoton(len(named)) if world.often(95) else fees.CLAIM_NANOTON
    return world.scene.send(world.anyone(), world.scene.rewards, value, body)


# ---- nobody's business ----


@action(6)
def forge(world: World) -> Sent:
    """What only the contracts say to each other, from someone else."""
    scene, source = world.scene, world.anyone()
    payload = layout.command_cell(commands.Remove(target=target_of(world)))
    terms = PinnedTerms(set_id=0, terms=PARAMS.terms)
    bodies = {
        Op.POOL_RELAY_CERTIFICATE: {"submitter": source, "attached": NANO, "set_id": 0, "kind": 5, "payload": payload},
        Op.POOL_SYNC_COUNTERS: {"seqno": 2**32 - 1, "active_count": 0, "pooled_stake": 0, "excess_to": source},
        Op.REGISTRY_SET_EPOCH_ROOT: {"submitter": source, "epoch": 1, "totals_root": POLICY},
        Op.POOL_UPGRADE_CHILD: {"code": payload, "excess_to": source},
        Op.DISTRIBUTION_RECEIVE_SLASHED: {"excess_to": source, "amount": NANO},
        Op.DISTRIBUTION_UPDATE_TERMS: {"next": terms, "excess_to": source},
    }
    op = world.rng.choice(list(bodies))
    try:
        body = layout.body_cell(op, **bodies[op])
    except InvalidValueError as error:
        raise AssertionError(f"{op.name}: {error}") from error
    return scene.send(source, world.rng.choice([scene.pool, scene.rewards, scene.registry]), 2 * NANO, body)


@action(3)
def nonsense(world: World) -> Sent:
    """Bits that mean nothing, or begin as a message does."""
    rng, scene = world.rng, world.scene
    builder = Builder()
    if world.often(70):
        builder.store_uint(rng.choice(list(Op)), 32)
    builder.store_bytes(rng.randbytes(rng.randrange(60)))
    if world.often(50):
        builder.store_ref(Builder().store_bytes(rng.randbytes(rng.randrange(100))).end_cell())
    dest = rng.choice([scene.pool, scene.rewards, scene.registry])
    return scene.send(world.anyone(), dest, rng.choice((0, 1, NANO)), builder.end_cell())


@action(10)
def wait(world: World) -> None:
    world.scene.advance(world.rng.choice((1, 60, HOUR_S, HOUR_S, DAY_S, DAY_S, 2 * DAY_S, 7 * DAY_S)))
