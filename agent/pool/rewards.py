"""What anybody does with a pool's rewards: claim, push, prove a contribution, finalize an epoch, pay in, top up.

Claims, pushes and contributions are proved from the settlement that landed last, which a running agent or its
journal knows; each is paid to the participant, whoever sends it.

Source: CONTRACTS, "Cumulative entitlement".
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from agent import arguments
from agent.claims import landed_settlement
from agent.config import Config, load_config
from agent.errors import ConfigError, OperationError
from agent.output import answer, note
from agent.pool.access import with_session
from agent.pool.participant import entry_of, to_registry
from agent.pool.sending import Operation, carry_out, perform, show_forecast
from agent.pool.session import PoolSession
from agent.pool.values import utc
from agent.screens import ton_exact
from agent.trace import new_query_id
from contracts import fees, layout, proof
from contracts.model import PAYOUTS_MAX, Address, RewardsState
from gossip.settlement import Settlement


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """What a participant earned ever and was paid so far, by a settlement."""

    participant: Address
    earned_nanoton: int
    paid_nanoton: int

    @property
    def nanoton(self) -> int:
        return self.earned_nanoton - self.paid_nanoton


def claim(options: argparse.Namespace) -> int:
    """Claim for this agent's wallet, or for somebody else."""
    config = load_config(options.config)
    named = arguments.parse_address("--participant", options.participant) if options.participant else None

    async def act(session: PoolSession) -> int:
        participant = named or session.wallet.address
        settlement = await _settlement(session, config)
        operation, due = await claiming(session, settlement, participant)
        if options.dry_run:
            return await show_forecast(session, options, operation)
        landed = await perform(session, operation)
        paid = (await session.reader.rewards()).paid_nanoton.get(participant.account, 0)
        value = {
            "participant": str(participant),
            "paid_now_nanoton": paid - due.paid_nanoton,
            "paid_nanoton": paid,
            "earned_nanoton": due.earned_nanoton,
            "transaction": landed.hash.hex(),
        }
        return answer(
            options,
            value,
            f"paid {ton_exact(paid - due.paid_nanoton)} to {participant}\n"
            f"transaction {landed.hash.hex()} of the rewards contract\n"
            f"of {ton_exact(due.earned_nanoton)} that it earned, {ton_exact(paid)} are paid now: see gpupool earnings",
        )

    return with_session(options, act)


async def claiming(session: PoolSession, settlement: Settlement, participant: Address) -> tuple[Operation, Due]:
    """Have the contract pay `participant` everything that it earned and was not paid yet.

    Raises:
        OperationError: the settlement is neither of the last two that landed, or nothing is due.
    """
    rewards = await session.reader.rewards()
    tree = _tree(settlement, rewards)
    due = next((each for each in dues(settlement, rewards) if each.participant == participant), None)
    if due is None:
        raise OperationError(f"nothing is due to {participant}: it earned nothing so far")
    if due.nanoton <= 0:
        raise OperationError(f"nothing is due to {participant}: {ton_exact(due.paid_nanoton)} were paid")
    body = layout.claim_body(participant, tree.prove(participant), query_id=new_query_id())
    state = await session.reader.state()
    return Operation(what="the claim", dest=state.rewards, value_nanoton=fees.CLAIM_NANOTON, body=body), due


def push(options: argparse.Namespace) -> int:
    """Have many paid at once."""
    if not 1 <= options.count <= PAYOUTS_MAX:
        raise ConfigError(f"--count {options.count}: expected 1 to {PAYOUTS_MAX}")
    config = load_config(options.config)

    async def act(session: PoolSession) -> int:
        settlement = await _settlement(session, config)
        operation, chosen = await pushing(session, settlement, count=options.count)
        rehearsed = await carry_out(session, options, operation)
        if rehearsed is not None:
            return rehearsed
        total = sum(due.nanoton for due in chosen)
        value = {"participants": [str(due.participant) for due in chosen], "amount_nanoton": total}
        return answer(options, value, f"paid {ton_exact(total)} to {len(chosen)} participants")

    return with_session(options, act)


async def pushing(session: PoolSession, settlement: Settlement, *, count: int) -> tuple[Operation, list[Due]]:
    """Pay at most `count` participants to whom something is due: those to whom the most is.

    The message lists them in the order of their accounts, which burns the least gas.

    Raises:
        OperationError: the pool pays by claims alone, or nobody has as much to get as a push pays at least.
    """
    rewards, state = await session.reader.rewards(), await session.reader.state()
    tree, terms = _tree(settlement, rewards), rewards.running.terms
    if not terms.auto_distribute:
        raise OperationError("this pool does not push: its parameters leave it to claims (auto_distribute)")
    least = max(1, terms.min_distribution_nanoton)
    waiting = [due for due in dues(settlement, rewards) if due.nanoton >= least]
    chosen = sorted(waiting, key=lambda due: (-due.nanoton, due.participant))[:count]
    if not chosen:
        raise OperationError(f"nobody has at least {ton_exact(least)} to get")
    participants = sorted(due.participant for due in chosen)
    body = layout.push_body(participants, tree.prove_many(participants), query_id=new_query_id())
    value = fees.push_nanoton(len(chosen))
    return Operation(what="the push", dest=state.rewards, value_nanoton=value, body=body), chosen


def contribution(options: argparse.Namespace) -> int:
    """Prove to the registry what a participant did in the epoch that was settled last."""
    config = load_config(options.config)
    named = arguments.parse_address("--participant", options.participant) if options.participant else None

    async def act(session: PoolSession) -> int:
        participant = named or session.wallet.address
        settlement = await _settlement(session, config)
        operation = await contributing(session, settlement, participant, epoch=options.epoch)
        rehearsed = await carry_out(session, options, operation)
        if rehearsed is not None:
            return rehearsed
        text = f"the registry counted epoch {options.epoch} of {participant}"
        return answer(options, {"participant": str(participant), "epoch": options.epoch}, text)

    return with_session(options, act)


async def contributing(session: PoolSession, settlement: Settlement, participant: Address, *, epoch: int) -> Operation:
    """Add what `participant` did in `epoch` to its lifetime figures, by the leaf of that settlement.

    Raises:
        OperationError: this agent knows another epoch's settlement, or the registry counted it already.
    """
    entry = await entry_of(session, participant)
    if settlement.payload.epoch != epoch:
        raise OperationError(
            f"this agent holds the settlement of epoch {settlement.payload.epoch}; an earlier one cannot be proved"
        )
    if entry.lifetime is not None and entry.lifetime.last_epoch >= epoch:
        raise OperationError(f"the registry counted epoch {entry.lifetime.last_epoch} already")
    if not any(leaf.participant == participant for leaf in settlement.leaves):
        raise OperationError(f"{participant} has no part in epoch {epoch}")
    tree = proof.totals_tree(settlement.leaves)
    body = layout.update_contribution_body(participant, epoch, tree.prove(participant), query_id=new_query_id())
    return await to_registry(session, body, "the contribution")


def finalize(options: argparse.Namespace) -> int:
    """End the epoch that is over."""

    async def act(session: PoolSession) -> int:
        rewards, state = await session.reader.rewards(), await session.reader.state()
        if await session.now_s() < rewards.current_end_s:
            raise OperationError(f"epoch {rewards.current_epoch} ends {utc(rewards.current_end_s)}; not before")
        body = layout.finalize_body(query_id=new_query_id())
        operation = Operation(
            what="the end of the epoch", dest=state.rewards, value_nanoton=fees.FINALIZE_NANOTON, body=body
        )
        rehearsed = await carry_out(session, options, operation)
        if rehearsed is not None:
            return rehearsed
        epoch = rewards.current_epoch
        return answer(options, {"finalized_epoch": epoch}, f"epoch {epoch} is final; its operators settle it now")

    return with_session(options, act)


def pay(options: argparse.Namespace) -> int:
    """Pay into the running epoch's pot."""
    amount = arguments.parse_ton("AMOUNT", options.amount)

    async def act(session: PoolSession) -> int:
        rehearsed = await carry_out(session, options, await payment(session, amount))
        if rehearsed is not None:
            return rehearsed
        credited = amount - fees.PAYMENT_NANOTON
        value = {"amount_nanoton": amount, "credited_nanoton": credited}
        text = f"paid {ton_exact(credited)} into the running epoch; {ton_exact(fees.PAYMENT_NANOTON)} were for its gas"
        return answer(options, value, text)

    return with_session(options, act)


async def payment(session: PoolSession, amount_nanoton: int) -> Operation:
    """Pay TON into the running epoch's pot."""
    state = await session.reader.state()
    body = layout.receive_payment_body(query_id=new_query_id())
    return Operation(what="the payment", dest=state.rewards, value_nanoton=amount_nanoton, body=body)


def top_up(options: argparse.Namespace) -> int:
    """Pay for a contract's storage."""
    amount = arguments.parse_ton("AMOUNT", options.amount)

    async def act(session: PoolSession) -> int:
        state = await session.reader.state()
        dest = {"pool": session.pool, "registry": state.registry, "rewards": state.rewards}[options.contract]
        body = layout.top_up_body(query_id=new_query_id())
        operation = Operation(what="the top-up", dest=dest, value_nanoton=amount, body=body)
        rehearsed = await carry_out(session, options, operation)
        if rehearsed is not None:
            return rehearsed
        value = {"contract": options.contract, "amount_nanoton": amount}
        return answer(options, value, f"the {options.contract} contract has {ton_exact(amount)} more for its storage")

    return with_session(options, act)


def dues(settlement: Settlement, rewards: RewardsState) -> list[Due]:
    """What is due to whom by this settlement."""
    return [
        Due(
            participant=leaf.participant,
            earned_nanoton=leaf.earned_nanoton,
            paid_nanoton=rewards.paid_nanoton.get(leaf.participant.account, 0),
        )
        for leaf in settlement.leaves
    ]


def _tree(settlement: Settlement, rewards: RewardsState) -> proof.TotalsTree:
    """The settlement's totals. Raises `OperationError` unless the contract takes proofs against them."""
    tree = proof.totals_tree(settlement.leaves)
    if tree.root_hash not in (rewards.landed.totals_root, rewards.landed.previous_root):
        raise OperationError(
            f"this agent knows the settlement of epoch {settlement.payload.epoch}, the chain that of epoch "
            f"{rewards.landed.epoch}; try again when the agent caught up"
        )
    return tree


async def _settlement(session: PoolSession, config: Config) -> Settlement:
    return await landed_settlement(session.chain, config, note)
