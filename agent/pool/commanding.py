"""A command to a pool: sent by its owner's wallet before the hand-over, signed by its operators afterwards.

One path for every kind, as in the contract (ADR 0010). Before the hand-over the command goes out at once; then it
becomes a certificate file (`agent.certificates`), signed by this operator if its node key is here, and travels
through the others until somebody submits it.

1. Nonces come from proven state, at the moment of the command.
2. What cannot be undone is shown first, and done with --yes.
3. With --dry-run nothing is sent and no file is written.
4. A node key signs one command of a number (`agent.pool.signed`), unless its operator insists.
"""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable
from pathlib import Path

from agent.certificates import CertificateFile, require_writable, write
from agent.errors import ConfigError, OperationError
from agent.output import EXIT_USAGE, answer, note
from agent.pool.access import with_session
from agent.pool.certificate_view import (
    IRREVERSIBLE,
    certificate_lines,
    certificate_value,
    command_lines,
    context_lines,
    next_step,
)
from agent.pool.owner import require_owner
from agent.pool.sending import Operation, carry_out
from agent.pool.session import PoolSession
from agent.pool.signed import SignedRecord
from agent.pool.values import command_value
from agent.pool.view import proposal_lines, proposal_value
from agent.trace import new_query_id
from contracts import fees, layout
from contracts.certificate import VALID_FOREVER_S
from contracts.commands import (
    AcceptSet,
    CancelSlash,
    Close,
    Command,
    FeesTo,
    OwnerMessage,
    Pause,
    ProposeSet,
    Remove,
    Resume,
    SetReputation,
    Slash,
    Suspend,
)
from contracts.model import DAY_S, Address, CertificateDomain, OperatorSet, PoolState, SettlePayload

DAYS_MAX = 365

Make = Callable[[PoolSession, PoolState], Awaitable[Command]]


def command(options: argparse.Namespace, make: Make) -> int:
    """Command what `make` makes from the pool's state."""

    async def act(session: PoolSession) -> int:
        state = await session.reader.state()
        made = await make(session, state)
        if state.operator_set is None:
            return await _command_as_owner(session, options, state, made)
        return await draft(session, options, state, made)

    return with_session(options, act)


async def _command_as_owner(session: PoolSession, options: argparse.Namespace, state: PoolState, made: Command) -> int:
    await require_owner(session)
    if isinstance(made, ProposeSet | AcceptSet):
        raise OperationError("the owner runs this pool: `gpupool pool hand-over` gives it its first operator set")
    value = command_value(made)
    text = "\n".join([*command_lines(made), *(f"  * {line}" for line in await context_lines(session, state, made))])
    if _lacks_consent(options, made):
        answer(options, {**value, "done": False}, text)
        note("nothing was done; this cannot be undone: add --yes to do it")
        return EXIT_USAGE
    rehearsed = await carry_out(session, options, owner_command(session, state, made))
    if rehearsed is not None:
        return rehearsed
    return answer(options, {**value, "done": True}, "\n".join([text, "done", *await _proposed(session, made)]))


async def _proposed(session: PoolSession, made: Command) -> list[str]:
    """When what was just proposed can be applied."""
    state, now_s = await session.reader.state(), await session.now_s()
    return [proposal_lines(proposal_value(each, state, now_s))[0] for each in state.pending if each.kind is made.kind]


def owner_command(session: PoolSession, state: PoolState, made: Command) -> Operation:
    """What the owner sends before the hand-over."""
    return Operation(
        what="the command",
        dest=session.pool,
        value_nanoton=fees.owner_command_nanoton(made),
        body=layout.owner_command_body(made, query_id=new_query_id()),
        final=last_contract(session.pool, state, made),
    )


def last_contract(pool: Address, state: PoolState, made: Command) -> Address:
    """Where a command's way ends: it carries out most itself, others it passes on, or tells a child about."""
    match made:
        case Slash() | CancelSlash() | SetReputation() | Remove() | Suspend() | Pause() | Resume() | Close():
            return state.registry
        case FeesTo() | OwnerMessage() | SettlePayload() | AcceptSet():
            return state.rewards
        case _:
            return pool


async def draft(
    session: PoolSession,
    options: argparse.Namespace,
    state: PoolState,
    made: Command,
    *,
    operator_set: OperatorSet | None = None,
) -> int:
    """Write the certificate file of a command, signed by this operator if its key is here.

    `operator_set` is the set that the command proposes by its hash.
    """
    signers = signing_set(state, made)
    now_s = await session.now_s()
    file = certificate_file(session, options, signers, made, now_s, operator_set=operator_set)
    path: Path = options.out or Path(file_name(made))
    context = await context_lines(session, state, made, operator_set)
    if _lacks_consent(options, made):
        value = {"file": str(path), "written": False, **certificate_value(file, signers)}
        answer(options, value, "\n".join(certificate_lines(file, signers, context)))
        note("nothing was signed; this cannot be undone: add --yes to do it")
        return EXIT_USAGE
    if not options.dry_run:
        require_writable(path)
    file = with_own_signature(session, options, file, signers, now_s, keep=not options.dry_run)
    if not options.dry_run:
        write(path, file)
    value = {"file": str(path), "written": not options.dry_run, **certificate_value(file, signers)}
    text = [
        f"{'would write' if options.dry_run else 'wrote'} {path}",
        *certificate_lines(file, signers, context),
        next_step(path, file, signers),
    ]
    return answer(options, value, "\n".join(text))


def certificate_file(
    session: PoolSession,
    options: argparse.Namespace,
    signers: OperatorSet,
    made: Command,
    now_s: int,
    *,
    operator_set: OperatorSet | None = None,
) -> CertificateFile:
    """The certificate of a command, signed by nobody yet, for `options.valid_days` from `now_s` on.

    Raises:
        ConfigError: it would count for too long, or not at all.
    """
    if not 1 <= options.valid_days <= DAYS_MAX:
        raise ConfigError(f"--valid-days {options.valid_days}: expected 1 to {DAYS_MAX}")
    return CertificateFile(
        domain=CertificateDomain(global_id=session.global_id, pool=session.pool, set_id=signers.set_id),
        valid_until_s=min(now_s + options.valid_days * DAY_S, VALID_FOREVER_S),
        command=made,
        operator_set=operator_set,
    )


def with_own_signature(
    session: PoolSession,
    options: argparse.Namespace,
    file: CertificateFile,
    signers: OperatorSet,
    now_s: int,
    *,
    keep: bool,
) -> CertificateFile:
    """The same with this operator's signature if its key is here; `keep=False` only rehearses.

    Raises:
        OperationError, SignedRecordError: as `SignedRecord.sign`.
    """
    key = session.node_key_if_there()
    if key is None or signers.index_of(key.public) is None:
        return file
    record = SignedRecord.of(session.node_key_file)
    return record.sign(file, key, now_s, another=options.sign_another, keep=keep)


def _lacks_consent(options: argparse.Namespace, made: Command) -> bool:
    """Whether the command cannot be undone and only has to be shown. The set that takes over consents by signing."""
    if isinstance(made, AcceptSet) or not isinstance(made, IRREVERSIBLE):
        return False
    return not (options.yes or options.dry_run)


def signing_set(state: PoolState, made: Command) -> OperatorSet:
    """The operators whose quorum the command needs: those in force, or the set that takes over.

    Raises:
        OperationError: there are no operators yet.
    """
    if state.operator_set is None:
        raise OperationError("the owner runs this pool; there are no operators whose signatures would count")
    return made.operator_set if isinstance(made, AcceptSet) else state.operator_set


def file_name(made: Command) -> str:
    """A name for the certificate's file: its kind, and the number that stops its replay."""
    match made:
        case SettlePayload():
            number = made.epoch
        case AcceptSet():
            number = made.operator_set.set_id
        case Slash() | CancelSlash() | SetReputation() | Remove() | Suspend():
            return f"{made.kind.name.lower()}-{made.target.participant.account.hex()[:8]}-{made.target.seqno}.json"
        case _:
            number = made.gov_seqno
    return f"{made.kind.name.lower()}-{number}.json"
