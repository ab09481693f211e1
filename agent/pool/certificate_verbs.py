"""The verbs for a certificate's way through the operators: show, sign, merge, submit.

What is shown and signed is read from the certificate itself, never from the file's readable part. Before a
signature or a submission the chain is asked whether the certificate can still land: the pool and its network, the
set in force, its age, and the number that stops its replay.
"""

from __future__ import annotations

import argparse

from agent import certificates
from agent.certificates import CertificateFile
from agent.errors import OperationError
from agent.output import EXIT_USAGE, answer, note
from agent.pool.access import with_session
from agent.pool.certificate_view import IRREVERSIBLE, certificate_lines, certificate_value, context_lines, next_step
from agent.pool.commanding import DAYS_MAX, last_contract, signing_set
from agent.pool.sending import Operation, carry_out
from agent.pool.session import PoolSession
from agent.pool.signed import SignedRecord
from agent.pool.values import utc
from agent.trace import new_query_id
from contracts import fees, layout
from contracts.certificate import submit_body
from contracts.commands import (
    AcceptSet,
    CancelSlash,
    FeesTo,
    OwnerMessage,
    ProposeSet,
    Remove,
    SetReputation,
    Slash,
    Suspend,
)
from contracts.model import DAY_S, CertificateKind, OperatorSet, PoolState, SettlePayload


def show(options: argparse.Namespace) -> int:
    """Show what a certificate commands, who signed it, and whether it can land."""
    file = certificates.read(options.file)

    async def act(session: PoolSession) -> int:
        state = await session.reader.state()
        signers = None if state.operator_set is None else signing_set(state, file.command)
        obstacle = await obstacle_of(session, state, file)
        end = f"it cannot land: {obstacle}"
        if obstacle is None and signers is not None:
            end = next_step(options.file, file, signers)
        value = {**certificate_value(file, signers), "obstacle": obstacle}
        return answer(options, value, "\n".join([*await _lines(session, state, file, signers), end]))

    return with_session(options, act)


def sign(options: argparse.Namespace) -> int:
    """Add this operator's signature; without --yes only show what it would be over."""
    file = certificates.read(options.file)

    async def act(session: PoolSession) -> int:
        state, now_s = await session.reader.state(), await session.now_s()
        signers = await _landing(session, state, file)
        if file.valid_until_s > now_s + DAYS_MAX * DAY_S:
            raise OperationError(
                f"it could land until {utc(file.valid_until_s)}: nothing that counts for over {DAYS_MAX} days is signed"
            )
        if isinstance(file.command, ProposeSet) and file.operator_set is None:
            raise OperationError(f"{options.file}: it does not show the proposed set; ask for a file that does")
        key = session.node_key()
        if signers.index_of(key.public) is None:
            raise OperationError(f"this node key ({key.public.hex()}) is not in operator set {signers.set_id}")
        if options.yes:
            certificates.require_writable(options.file, over=True)
        record = SignedRecord.of(session.node_key_file)
        signed = record.sign(file, key, now_s, another=options.sign_another, keep=options.yes)
        if not options.yes:
            value = {**certificate_value(file, signers), "done": False}
            answer(options, value, "\n".join(await _lines(session, state, file, signers)))
            note("nothing was signed; read what it commands, then add --yes to sign it")
            return EXIT_USAGE
        if signed != file:
            certificates.write(options.file, signed, over=True)
        head = f"signed {options.file}" if signed != file else f"{options.file} was signed by this node key already"
        text = [head, *await _lines(session, state, signed, signers), next_step(options.file, signed, signers)]
        return answer(options, {**certificate_value(signed, signers), "done": True}, "\n".join(text))

    return with_session(options, act)


async def _lines(
    session: PoolSession, state: PoolState, file: CertificateFile, signers: OperatorSet | None
) -> list[str]:
    """The certificate for people, with what it means for this pool."""
    return certificate_lines(file, signers, await context_lines(session, state, file.command, file.operator_set))


def merge(options: argparse.Namespace) -> int:
    """Write one file with the signatures of several; needs no chain."""
    merged = certificates.merge([certificates.read(path) for path in options.files])
    certificates.write(options.out, merged)
    value = {"file": str(options.out), **certificate_value(merged, None)}
    text = [f"wrote {options.out}", *certificate_lines(merged, None)]
    return answer(options, value, "\n".join([*text, f"next: `gpupool pool certificate show {options.out}`"]))


def submit(options: argparse.Namespace) -> int:
    """Send a certificate that has a quorum."""
    file = certificates.read(options.file)

    async def act(session: PoolSession) -> int:
        state = await session.reader.state()
        signers = await _landing(session, state, file)
        if isinstance(file.command, Slash | FeesTo | OwnerMessage) and state.is_paused(await session.now_s()):
            raise OperationError("the pool is paused and takes this once it is resumed")
        operation = submission(session, state, file, signers)
        if isinstance(file.command, IRREVERSIBLE) and not (options.yes or options.dry_run):
            value = {**certificate_value(file, signers), "done": False}
            answer(options, value, "\n".join(await _lines(session, state, file, signers)))
            note("nothing was done; this cannot be undone: add --yes to do it")
            return EXIT_USAGE
        rehearsed = await carry_out(session, options, operation)
        if rehearsed is not None:
            return rehearsed
        text = "\n".join([*certificate_lines(file, signers), "landed"])
        return answer(options, {**certificate_value(file, signers), "done": True}, text)

    return with_session(options, act)


def submission(session: PoolSession, state: PoolState, file: CertificateFile, signers: OperatorSet) -> Operation:
    """The message that brings a certificate, with as few signatures as make a quorum.

    Raises:
        OperationError: those who signed are no quorum.
    """
    chosen = certificates.fewest(file.weigh(signers)[0], signers)
    return Operation(
        what="the certificate",
        dest=session.pool,
        value_nanoton=fees.submit_nanoton(len(chosen), file.command),
        body=submit_body(file.cell, chosen, query_id=new_query_id()),
        final=last_contract(session.pool, state, file.command),
    )


async def _landing(session: PoolSession, state: PoolState, file: CertificateFile) -> OperatorSet:
    """Who signs it. Raises `OperationError` if it cannot land any more."""
    obstacle = await obstacle_of(session, state, file)
    if obstacle is not None:
        raise OperationError(obstacle)
    return signing_set(state, file.command)


async def obstacle_of(session: PoolSession, state: PoolState, file: CertificateFile) -> str | None:
    """Why the contracts would refuse the certificate whoever signs it; None if nothing is known."""
    domain, made = file.domain, file.command
    if (domain.global_id, domain.pool) != (session.global_id, session.pool):
        return f"it is for the pool {domain.pool} on network {domain.global_id}, not for this one"
    if state.operator_set is None:
        return "the owner still runs this pool"
    signers = signing_set(state, made)
    if domain.set_id != signers.set_id or (
        isinstance(made, AcceptSet) and domain.set_id != state.operator_set.set_id + 1
    ):
        return f"it is of operator set {domain.set_id}, while set {state.operator_set.set_id} is in force"
    now_s = await session.now_s()
    if now_s > file.valid_until_s:
        return f"it expired {utc(file.valid_until_s)}"
    match made:
        case SettlePayload():
            return "settlements are submitted by the agents themselves"
        case AcceptSet():
            return _obstacle_of_set(state, made, now_s)
        case ProposeSet() if file.operator_set is not None and file.operator_set.set_id != domain.set_id + 1:
            return f"it proposes a set of the number {file.operator_set.set_id}, which could never take over"
        case Slash() | CancelSlash() | SetReputation() | Remove() | Suspend():
            participants = await session.reader.registry()
            entry = next((each for each in participants if each.address == made.target.participant), None)
            if entry is None:
                return "that participant left"
            if (made.target.joined_s, made.target.seqno) != (entry.joined_s, entry.seqno + 1):
                return "another command about this participant landed meanwhile: command it anew"
        case _:
            if made.gov_seqno != state.gov_seqno + 1:
                return f"it is command {made.gov_seqno} of the pool; the next one is {state.gov_seqno + 1}"
    return None


def _obstacle_of_set(state: PoolState, made: AcceptSet, now_s: int) -> str | None:
    proposal = next((each for each in state.pending if each.kind is CertificateKind.PROPOSE_SET), None)
    if proposal is None or proposal.hash != layout.operator_set_cell(made.operator_set).hash:
        return "this set is not proposed"
    if not proposal.ready_s(state.params) <= now_s <= proposal.expires_s(state.params):
        ready_s, expires_s = proposal.ready_s(state.params), proposal.expires_s(state.params)
        return f"the set can take over from {utc(ready_s)} to {utc(expires_s)}"
    return None
