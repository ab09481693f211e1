"""The verbs that are one command each: pause, fees, metadata, and what happens to an entry in the registry.

Who may give it, and how it travels, is `commanding`'s.

Source: CONTRACTS, "Must exist"; `contracts/src/certificate.tolk`.
"""

from __future__ import annotations

import argparse

from agent import arguments
from agent.errors import ConfigError, OperationError
from agent.output import answer
from agent.pool import files
from agent.pool.access import with_session
from agent.pool.commanding import command
from agent.pool.participant import entry_of, to_registry
from agent.pool.sending import Operation, carry_out
from agent.pool.session import PoolSession
from agent.pool.values import utc
from agent.screens import ton_exact
from agent.trace import new_query_id
from contracts import fees, layout
from contracts.commands import (
    CancelSlash,
    Close,
    Command,
    FeesTo,
    OwnerMessage,
    Pause,
    Remove,
    Resume,
    SetMetadata,
    SetRegistration,
    SetReputation,
    Slash,
    SlashReason,
    Suspend,
    Target,
)
from contracts.model import REPUTATION_MAX, ZERO_HASH, Participant, ParticipantStatus, PoolState, PoolStatus

# The pool.


def pause(options: argparse.Namespace) -> int:
    """Stop settlements, slashes, fees and registrations until a resume."""

    async def make(_session: PoolSession, state: PoolState) -> Command:
        _require_open(state)
        if state.status is PoolStatus.PAUSED:
            raise OperationError("the pool is paused already")
        return Pause(gov_seqno=state.gov_seqno + 1)

    return command(options, make)


def resume(options: argparse.Namespace) -> int:
    """End a pause."""

    async def make(_session: PoolSession, state: PoolState) -> Command:
        if state.status is PoolStatus.CLOSED and not state.paused_until_s:
            raise OperationError("the pool is closed for ever")
        if state.status is not PoolStatus.PAUSED and not state.paused_until_s:
            raise OperationError("the pool is not paused")
        return Resume(gov_seqno=state.gov_seqno + 1)

    return command(options, make)


def close(options: argparse.Namespace) -> int:
    """Take nobody in any more, for ever."""

    async def make(_session: PoolSession, state: PoolState) -> Command:
        _require_open(state)
        return Close(gov_seqno=state.gov_seqno + 1)

    return command(options, make)


def registration(options: argparse.Namespace) -> int:
    """Open or shut the registration."""

    async def make(_session: PoolSession, state: PoolState) -> Command:
        _require_open(state)
        wanted = options.state == "open"
        if state.registration_open is wanted:
            raise OperationError(f"the registration is {options.state} already")
        return SetRegistration(gov_seqno=state.gov_seqno + 1, open=wanted)

    return command(options, make)


def metadata(options: argparse.Namespace) -> int:
    """Give the pool another name, description, website, contact."""
    wanted = files.read_metadata(options.file)

    async def make(_session: PoolSession, state: PoolState) -> Command:
        if state.metadata == wanted:
            raise OperationError(f"{options.file}: changes nothing")
        return SetMetadata(gov_seqno=state.gov_seqno + 1, metadata=wanted)

    return command(options, make)


def fees_to(options: argparse.Namespace) -> int:
    """Pay operators' fees out."""
    recipient = arguments.parse_address("ADDRESS", options.address)
    amount = arguments.parse_ton("AMOUNT", options.amount)

    async def make(session: PoolSession, state: PoolState) -> Command:
        pending = (await session.reader.rewards()).pending_fees_nanoton
        if amount > pending:
            raise OperationError(f"the operators have {ton_exact(pending)} of fees to pay out, not {ton_exact(amount)}")
        return FeesTo(gov_seqno=state.gov_seqno + 1, recipient=recipient, amount_nanoton=amount)

    return command(options, make)


def owner_message(options: argparse.Namespace) -> int:
    """Have the rewards contract send a message, as the owner of Cocoon workers."""
    dest = arguments.parse_address("ADDRESS", options.address)
    value = arguments.parse_ton("AMOUNT", options.amount)
    body = files.read_cell(options.body)

    async def make(_session: PoolSession, state: PoolState) -> Command:
        return OwnerMessage(gov_seqno=state.gov_seqno + 1, dest=dest, value_nanoton=value, body=body)

    return command(options, make)


def _require_open(state: PoolState) -> None:
    if state.status is PoolStatus.CLOSED:
        raise OperationError("the pool is closed for ever")


# An entry in the registry.


def slash(options: argparse.Namespace) -> int:
    """Take stake away from a participant; it is held 7 days for an appeal."""
    owner = arguments.parse_address("OWNER", options.owner)
    amount = 0 if options.amount is None else arguments.parse_ton("--amount", options.amount)
    evidence = ZERO_HASH if options.evidence is None else arguments.parse_hash("--evidence", options.evidence)

    async def make(session: PoolSession, _state: PoolState) -> Command:
        entry = await entry_of(session, owner)
        if entry.stake_nanoton == 0:
            raise OperationError(f"{owner} has nothing staked")
        return Slash(
            target=_target(entry),
            amount_nanoton=amount,
            reason=SlashReason[options.reason.upper()],
            evidence_hash=evidence,
        )

    return command(options, make)


def slash_cancel(options: argparse.Namespace) -> int:
    """Give slashed stake back, in time."""
    owner = arguments.parse_address("OWNER", options.owner)

    async def make(session: PoolSession, _state: PoolState) -> Command:
        entry = await entry_of(session, owner)
        if entry.held_nanoton == 0:
            raise OperationError(f"no slashed stake of {owner} is held")
        if await session.now_s() >= entry.held_until_s:
            raise OperationError(f"the time for it ended {utc(entry.held_until_s)}")
        return CancelSlash(target=_target(entry))

    return command(options, make)


def reputation(options: argparse.Namespace) -> int:
    """Set a participant's reputation."""
    owner = arguments.parse_address("OWNER", options.owner)
    if not 0 <= options.reputation <= REPUTATION_MAX:
        raise ConfigError(f"REPUTATION {options.reputation}: expected 0 to {REPUTATION_MAX}")

    async def make(session: PoolSession, _state: PoolState) -> Command:
        return SetReputation(target=_target(await entry_of(session, owner)), reputation=options.reputation)

    return command(options, make)


def suspend(options: argparse.Namespace) -> int:
    """Suspend a participant, or reinstate it."""
    owner = arguments.parse_address("OWNER", options.owner)

    async def make(session: PoolSession, _state: PoolState) -> Command:
        entry = await entry_of(session, owner)
        if (entry.status is ParticipantStatus.SUSPENDED) is options.suspended:
            raise OperationError(f"{owner} is {'suspended already' if options.suspended else 'not suspended'}")
        return Suspend(target=_target(entry), suspended=options.suspended)

    return command(options, make)


def remove(options: argparse.Namespace) -> int:
    """Suspend a participant and start the withdrawal of its whole stake."""
    owner = arguments.parse_address("OWNER", options.owner)

    async def make(session: PoolSession, _state: PoolState) -> Command:
        return Remove(target=_target(await entry_of(session, owner)))

    return command(options, make)


def _target(entry: Participant) -> Target:
    return Target(participant=entry.address, joined_s=entry.joined_s, seqno=entry.seqno + 1)


# What needs nobody's consent.


def sweep(options: argparse.Namespace) -> int:
    """Move slashed stake to the rewards, once no appeal is possible any more."""
    owner = arguments.parse_address("OWNER", options.owner)

    async def act(session: PoolSession) -> int:
        entry, state = await entry_of(session, owner), await session.reader.state()
        if entry.held_nanoton == 0:
            raise OperationError(f"no slashed stake of {owner} is held")
        if await session.now_s() < entry.held_until_s:
            raise OperationError(f"{ton_exact(entry.held_nanoton)} are open to appeal until {utc(entry.held_until_s)}")
        body = layout.sweep_slashed_body(owner, query_id=new_query_id())
        operation = await to_registry(session, body, "the sweep", final=state.rewards)
        rehearsed = await carry_out(session, options, operation)
        if rehearsed is not None:
            return rehearsed
        value = {"owner": str(owner), "amount_nanoton": entry.held_nanoton}
        return answer(options, value, f"{ton_exact(entry.held_nanoton)} go into the running epoch's pot")

    return with_session(options, act)


def guardian_pause(options: argparse.Namespace) -> int:
    """Pause as the guardian, for 14 days, once until a resume."""

    async def act(session: PoolSession) -> int:
        state = await session.reader.state()
        if not state.params.emergency or state.params.guardian != session.wallet.address:
            raise OperationError(f"this wallet ({session.wallet.address}) is not the guardian, or may not pause")
        if state.paused_until_s:
            raise OperationError("the guardian paused already; a resume by the operators lets it pause once more")
        operation = Operation(
            what="the pause",
            dest=session.pool,
            value_nanoton=fees.APPLY_NANOTON,
            body=layout.guardian_pause_body(query_id=new_query_id()),
            final=state.registry,
        )
        rehearsed = await carry_out(session, options, operation)
        if rehearsed is not None:
            return rehearsed
        until_s = (await session.reader.state()).paused_until_s
        return answer(options, {"paused_until_s": until_s}, f"paused until {utc(until_s)}")

    return with_session(options, act)
