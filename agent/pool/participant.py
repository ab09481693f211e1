"""What a participant does with its own entry in the registry: join, stake, withdraw, show that it is there.

Each verb refuses what cannot succeed with a sentence, from proven state, before anything is sent; the contract
is the judge all the same.

Source: CONTRACTS, "Must exist" (ParticipantRegistry).
"""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from pytoniq_core import Cell

from agent import arguments
from agent.errors import OperationError
from agent.output import EXIT_USAGE, answer, note
from agent.pool.access import with_session
from agent.pool.sending import Operation, carry_out, perform, show_forecast
from agent.pool.session import PoolSession
from agent.pool.values import span, utc
from agent.screens import ton_exact
from agent.trace import new_query_id
from contracts import fees, layout
from contracts.certificate import prove_possession
from contracts.model import ZERO_HASH, Address, Participant, ParticipantStatus
from contracts.signing import SigningKey


def register(options: argparse.Namespace) -> int:
    """Stake and join; without an amount, only say what the least stake is."""
    stake = None if options.stake is None else arguments.parse_ton("--stake", options.stake)
    worker = arguments.parse_address("--worker", options.worker) if options.worker else None
    spec_hash = arguments.parse_hash("--gpu-spec-hash", options.gpu_spec_hash) if options.gpu_spec_hash else ZERO_HASH

    async def act(session: PoolSession) -> int:
        node_key = session.node_key()
        rules = (await session.reader.state()).params.rules
        amount = rules.min_stake_nanoton if stake is None else stake
        operation = await registration(
            session,
            node_key=node_key,
            stake_nanoton=amount,
            worker=worker,
            gpu_spec_hash=spec_hash,
            gpu_count=options.gpu_count,
        )
        if options.dry_run:
            return await show_forecast(session, options, operation)
        if stake is None:
            note(_NO_STAKE.format(least=ton_exact(amount), wait=span(rules.withdrawal_delay_s)))
            return EXIT_USAGE
        landed = await perform(session, operation)
        owner = session.wallet.address
        value = {
            "participant": str(owner),
            "node_key": node_key.public.hex(),
            "stake_nanoton": stake,
            "transaction": landed.hash.hex(),
        }
        return answer(options, value, _REGISTERED.format(owner=owner, stake=ton_exact(stake), hash=landed.hash.hex()))

    return with_session(options, act)


_NO_STAKE = (
    "nothing was done. This pool's least stake is {least}; it stays locked, and comes back {wait} after it is asked "
    "back. Name what to stake: --stake TON; --dry-run shows the fees"
)
_REGISTERED = (
    "registered {owner} with {stake}\n"
    "transaction {hash} of the registry\n"
    "next: start the agent, if it does not run yet (systemctl start gpupool-agent, or gpupool run); "
    "gpupool doctor says whether it earns"
)


def _require_new(participants: Iterable[Participant], owner: Address, node_key: bytes) -> None:
    """Raise `OperationError` if the wallet, or the node key (32 bytes), has an entry; it says which, and whose."""
    for entry in participants:
        if entry.address == owner and entry.node_key == node_key:
            raise OperationError(f"this agent is registered already: wallet {owner}, with this node key")
        if entry.address == owner:
            raise OperationError(
                f"this wallet, {owner}, is registered already, with another node key: {entry.node_key.hex()}. To have "
                "it name another one: gpupool keys rotate"
            )
        if entry.node_key == node_key:
            raise OperationError(
                f"this node key, {node_key.hex()}, is registered already, by another wallet: {entry.address}"
            )


async def registration(
    session: PoolSession,
    *,
    node_key: SigningKey,
    stake_nanoton: int,
    worker: Address | None = None,
    gpu_spec_hash: bytes = ZERO_HASH,
    gpu_count: int = 0,
) -> Operation:
    """Stake and enter the registry as the wallet's address; the node key signs that it belongs to it.

    Raises:
        OperationError: paused, closed, full, registered already, or the stake is too small.
    """
    state, participants = await session.reader.state(), await session.reader.registry()
    owner = session.wallet.address
    _require_new(participants, owner, node_key.public)
    if state.is_paused(await session.now_s()):
        raise OperationError("the pool is paused and takes no participants meanwhile")
    if not state.registration_open or len(participants) >= state.params.max_participants:
        raise OperationError("the pool takes no participants now: registration is closed or the pool is full")
    least = state.params.rules.min_stake_nanoton
    if stake_nanoton < least:
        raise OperationError(f"the least stake is {ton_exact(least)}")
    body = layout.register_body(
        stake_nanoton=stake_nanoton,
        node_key=node_key.public,
        signature=prove_possession(node_key, global_id=session.global_id, pool=session.pool, owner=owner),
        worker=worker,
        gpu_spec_hash=gpu_spec_hash,
        gpu_count=gpu_count,
        query_id=new_query_id(),
    )
    return Operation(
        what="the registration",
        dest=session.pool,
        value_nanoton=stake_nanoton + fees.REGISTRATION_NANOTON,
        body=body,
        final=state.registry,
    )


def stake_add(options: argparse.Namespace) -> int:
    """Stake more."""
    amount = arguments.parse_ton("AMOUNT", options.amount)

    async def prepare(session: PoolSession) -> tuple[Operation, str]:
        await own_entry(session)
        state = await session.reader.state()
        if state.is_paused(await session.now_s()):
            raise OperationError("the pool is paused and takes no stake meanwhile")
        body = layout.increase_stake_body(amount, query_id=new_query_id())
        operation = await to_registry(session, body, "the stake", value_nanoton=amount + fees.ENTRY_NANOTON)
        return operation, f"staked {ton_exact(amount)} more"

    return _carry_out(options, prepare, {"amount_nanoton": amount})


def withdraw_request(options: argparse.Namespace) -> int:
    """Ask for stake back."""
    amount = None if options.amount == "all" else arguments.parse_ton("AMOUNT", options.amount)

    async def prepare(session: PoolSession) -> tuple[Operation, str]:
        entry = await own_entry(session)
        rules = (await session.reader.state()).params.rules
        free = entry.stake_nanoton - entry.pending_nanoton
        asked = free if amount is None else amount
        if asked == 0 or asked > free:
            raise OperationError(f"{ton_exact(free)} of the stake are not asked back yet: that is the most")
        if 0 < free - asked < rules.min_stake_nanoton:
            raise OperationError(
                f"{ton_exact(free - asked)} would stay, less than the pool's least stake of "
                f"{ton_exact(rules.min_stake_nanoton)}: ask for less, or for all"
            )
        body = layout.request_withdrawal_body(asked, query_id=new_query_id())
        operation = await to_registry(session, body, "the withdrawal")
        at = f"{span(rules.withdrawal_delay_s)}, about {utc(await session.now_s() + rules.withdrawal_delay_s)}"
        wait = f"it can be paid in {at}, by `gpupool pool withdraw complete`"
        restart = "; the wait begins anew for all that was asked back before" if entry.pending_nanoton else ""
        return operation, f"asked {ton_exact(asked)} back: {wait}{restart}"

    return _carry_out(options, prepare, {"amount_nanoton": amount})


def withdraw_cancel(options: argparse.Namespace) -> int:
    """Keep the stake after all."""

    async def prepare(session: PoolSession) -> tuple[Operation, str]:
        entry = await own_entry(session)
        if entry.pending_nanoton == 0:
            raise OperationError("no withdrawal was asked for")
        if entry.status is ParticipantStatus.SUSPENDED:
            raise OperationError("a suspended participant cannot take a withdrawal back")
        operation = await to_registry(
            session, layout.cancel_withdrawal_body(query_id=new_query_id()), "the cancellation"
        )
        return operation, f"{ton_exact(entry.pending_nanoton)} stay staked"

    return _carry_out(options, prepare)


def withdraw_complete(options: argparse.Namespace) -> int:
    """Have the stake paid that was asked back, once its wait is over; for anybody."""
    named = arguments.parse_address("--participant", options.participant) if options.participant else None

    async def prepare(session: PoolSession) -> tuple[Operation, str]:
        entry = await entry_of(session, named or session.wallet.address)
        if entry.pending_nanoton == 0:
            raise OperationError(f"{entry.address} asked for no withdrawal")
        if await session.now_s() < entry.withdraw_at_s:
            raise OperationError(
                f"{ton_exact(entry.pending_nanoton)} are locked until {utc(entry.withdraw_at_s)}; try again then"
            )
        body = layout.complete_withdrawal_body(entry.address, query_id=new_query_id())
        operation = await to_registry(session, body, "the withdrawal")
        return operation, f"{ton_exact(entry.pending_nanoton)} went back to {entry.address}"

    return _carry_out(options, prepare)


def heartbeat(options: argparse.Namespace) -> int:
    """Show on chain that this participant is there."""

    async def prepare(session: PoolSession) -> tuple[Operation, str]:
        await own_entry(session)
        body = layout.heartbeat_body(query_id=new_query_id())
        return await to_registry(session, body, "the heartbeat"), "the registry took the heartbeat"

    return _carry_out(options, prepare)


def worker(options: argparse.Namespace) -> int:
    """Name another Cocoon worker contract, or none."""
    address = None if options.address == "none" else arguments.parse_address("ADDRESS", options.address)

    async def prepare(session: PoolSession) -> tuple[Operation, str]:
        await own_entry(session)
        body = layout.update_worker_body(address, query_id=new_query_id())
        return await to_registry(session, body, "the worker's address"), f"worker contract: {address or 'none'}"

    return _carry_out(options, prepare, {"worker": None if address is None else str(address)})


async def own_entry(session: PoolSession) -> Participant:
    """The wallet's entry. Raises `OperationError` if it has none."""
    return await entry_of(session, session.wallet.address)


async def entry_of(session: PoolSession, owner: Address) -> Participant:
    """The entry of `owner`. Raises `OperationError` if there is none."""
    for entry in await session.reader.registry():
        if entry.address == owner:
            return entry
    raise OperationError(f"{owner} is not registered in this pool")


async def to_registry(
    session: PoolSession,
    body: Cell,
    what: str,
    *,
    value_nanoton: int = fees.ENTRY_NANOTON,
    final: Address | None = None,
) -> Operation:
    """A message to the registry; all but its gas comes back."""
    registry = (await session.reader.state()).registry
    return Operation(what=what, dest=registry, value_nanoton=value_nanoton, body=body, final=final)


def _carry_out(
    options: argparse.Namespace,
    prepare: Callable[[PoolSession], Awaitable[tuple[Operation, str]]],
    value: dict[str, Any] | None = None,
) -> int:
    """Carry out what `prepare` makes; its text says what is done then."""

    async def act(session: PoolSession) -> int:
        operation, text = await prepare(session)
        rehearsed = await carry_out(session, options, operation)
        if rehearsed is not None:
            return rehearsed
        return answer(options, {"done": text, **(value or {})}, text)

    return with_session(options, act)
