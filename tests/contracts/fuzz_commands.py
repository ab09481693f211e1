"""What may be commanded of a pool: by its owner, later by certificates, and at times by the wrong ones.

Most draws are in order, so that the pool gets far. `World.commanded` says whether the owner's word or enough
signatures stood behind a step.
"""

from __future__ import annotations

from dataclasses import replace

from contracts import commands, layout
from contracts.model import (
    DAY_S,
    HOUR_S,
    NANO,
    PROPOSAL_KINDS,
    EpochTerms,
    PoolMetadata,
    PoolParams,
    StakeRules,
    UpgradeTarget,
)
from tests.contracts.fuzz_world import MIN_STAKE, STRANGER, Actions, World, adding_to
from tests.contracts.pool_scene import (
    GUARDIAN,
    OWNER,
    POLICY,
    Sent,
)

ACTIONS: Actions = []
action = adding_to(ACTIONS)


CODES: dict[UpgradeTarget, layout.ContractName] = {
    UpgradeTarget.POOL: "pool_operator",
    UpgradeTarget.REWARDS: "reward_distribution",
    UpgradeTarget.REGISTRY: "participant_registry",
}


def command(world: World, what: commands.Command, *, set_id: int | None = None) -> Sent:
    """As the owner or, after the hand-over, by a certificate; at times by the wrong ones."""
    scene = world.scene
    pool = scene.pool_state()
    if pool.phase == 0:
        source = OWNER if world.often() else world.anyone()
        world.commanded = source == OWNER
        return scene.owner_command(what, source=source)
    if set_id is None:
        set_id = scene.domain.set_id
    if not world.often(97):
        set_id = world.rng.choice(list(scene.keys_of))
    count = len(scene.keys_of[set_id])
    signers = sorted(world.rng.sample(range(count), world.rng.randrange(1, count + 1)))
    signers = list(range(count)) if world.often(80) else signers
    world.commanded = len(signers) * 3 > count * 2
    until = scene.ledger.now + world.rng.choice((0, HOUR_S)) if world.often(95) else scene.ledger.now - 1
    value = None if world.often(97) else NANO // 50
    return scene.command(what, signers, set_id=set_id, valid_until_s=until, value=value)


@action(2)
def hand_over(world: World) -> Sent:
    in_charge = world.scene.pool_state().operator_set
    if in_charge is not None:
        return world.scene.enable_quorum(replace(in_charge, set_id=in_charge.set_id + 1))
    source = OWNER if world.often(50) else world.anyone()
    return world.scene.enable_quorum(world.scene.new_set(1, world.rng.randrange(1, 7)), source=source)


def target_of(world: World) -> commands.Target:
    owner = world.member()
    try:
        target = world.scene.target(owner)
    except StopIteration:
        return commands.Target(participant=owner, joined_s=0, seqno=1)
    seqno = target.seqno if world.often() else world.rng.choice((0, target.seqno - 1, target.seqno + 1))
    joined = target.joined_s if world.often(97) else target.joined_s - 1
    return commands.Target(participant=owner, joined_s=joined, seqno=seqno)


@action(8)
def slash(world: World) -> Sent:
    amount = world.rng.choice((0, 1, MIN_STAKE, 100 * MIN_STAKE))
    reason = commands.SlashReason(world.rng.randrange(1, 5))
    return command(
        world, commands.Slash(target=target_of(world), amount_nanoton=amount, reason=reason, evidence_hash=POLICY)
    )


@action(4)
def cancel_slash(world: World) -> Sent:
    return command(world, commands.CancelSlash(target=target_of(world)))


@action(2)
def set_reputation(world: World) -> Sent:
    return command(world, commands.SetReputation(target=target_of(world), reputation=world.rng.randrange(1001)))


@action(3)
def suspend(world: World) -> Sent:
    return command(world, commands.Suspend(target=target_of(world), suspended=world.often(40)))


@action(2)
def remove(world: World) -> Sent:
    return command(world, commands.Remove(target=target_of(world)))


def _seqno(world: World) -> int:
    return world.scene.gov_seqno + (0 if world.often(95) else world.rng.choice((-1, 1)))


@action(2)
def pause(world: World) -> Sent:
    return command(world, commands.Pause(gov_seqno=_seqno(world)))


@action(10)
def resume(world: World) -> Sent:
    return command(world, commands.Resume(gov_seqno=_seqno(world)))


@action(2)
def guardian_pause(world: World) -> Sent:
    return world.scene.guardian_pause(source=GUARDIAN if world.often() else world.anyone())


@action(1)
def close(world: World) -> Sent | None:
    return command(world, commands.Close(gov_seqno=_seqno(world))) if not world.often(96) else None


@action(3)
def set_registration(world: World) -> Sent:
    return command(world, commands.SetRegistration(gov_seqno=_seqno(world), open=world.often(85)))


@action(1)
def set_metadata(world: World) -> Sent:
    metadata = PoolMetadata(name="pool" * world.rng.randrange(17))
    return command(world, commands.SetMetadata(gov_seqno=_seqno(world), metadata=metadata))


@action(3)
def propose_set(world: World) -> Sent:
    world.proposed_set = world.scene.new_set(world.scene.domain.set_id + 1, world.rng.randrange(1, 7))
    set_hash = layout.operator_set_cell(world.proposed_set).hash
    return command(world, commands.ProposeSet(gov_seqno=_seqno(world), set_hash=set_hash))


@action(5)
def accept_set(world: World) -> Sent | None:
    if world.proposed_set is None:
        return None
    wait = world.rng.choice((0, world.scene.pool_state().params.parameter_delay_s))
    world.scene.advance(wait)
    return command(world, commands.AcceptSet(operator_set=world.proposed_set), set_id=world.proposed_set.set_id)


@action(4)
def propose_params(world: World) -> Sent:
    rng = world.rng
    terms = EpochTerms(
        fee_bps=rng.choice((0, 500, 10_000)),
        policy_hash=bytes([rng.randrange(256)] * 32),
        max_refund_nanoton=rng.choice((0, NANO // 2)),
        auto_distribute=world.often(80),
        min_distribution_nanoton=rng.choice((0, NANO)),
    )
    rules = StakeRules(
        min_stake_nanoton=rng.choice((1, MIN_STAKE, 2 * MIN_STAKE)),
        slash_bps=rng.choice((0, 1000, 10_000)),
        withdrawal_delay_s=rng.choice((HOUR_S, DAY_S)),
        heartbeat_timeout_s=rng.choice((0, HOUR_S)),
    )
    params = PoolParams(
        terms=terms,
        rules=rules,
        max_participants=rng.choice((3, 8)),
        parameter_delay_s=HOUR_S,
        upgrade_delay_s=7 * DAY_S,
        emergency=world.often(80),
        guardian=GUARDIAN,
    )
    return command(world, commands.ProposeParams(gov_seqno=_seqno(world), params=params))


@action(5)
def apply_params(world: World) -> Sent:
    return world.scene.apply_params(source=world.anyone())


@action(2)
def propose_upgrade(world: World) -> Sent:
    target = world.rng.choice(list(CODES))
    code_hash = layout.code(CODES[target]).hash
    return command(world, commands.ProposeUpgrade(gov_seqno=_seqno(world), target=target, code_hash=code_hash))


@action(3)
def apply_upgrade(world: World) -> Sent:
    """To the code that the contract has: what changes is that a code was set."""
    if world.often(30):
        world.scene.advance(7 * DAY_S)
    return world.scene.apply_upgrade(layout.code(world.rng.choice(list(CODES.values()))), source=world.anyone())


@action(1)
def cancel_proposal(world: World) -> Sent:
    kind = world.rng.choice(sorted(PROPOSAL_KINDS))
    return command(world, commands.CancelProposal(gov_seqno=_seqno(world), proposal=kind))


@action(4)
def fees_to(world: World) -> Sent:
    amount = world.around(0, 1, world.scene.state().pending_fees_nanoton)
    return command(world, commands.FeesTo(gov_seqno=_seqno(world), recipient=world.anyone(), amount_nanoton=amount))


@action(2)
def owner_message(world: World) -> Sent:
    dest = world.rng.choice([STRANGER, STRANGER, world.scene.rewards, world.scene.registry, world.scene.pool])
    value = world.rng.choice((0, NANO))
    body = layout.top_up_body()
    message = commands.OwnerMessage(gov_seqno=_seqno(world), dest=dest, value_nanoton=value, body=body)
    return command(world, message)
