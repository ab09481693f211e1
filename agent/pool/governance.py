"""The verbs for what has to wait: parameters, operator sets, code. Proposed, then applied when the time has come.

Source: CONTRACTS, trap 12; `contracts/src/governance.tolk`.
"""

from __future__ import annotations

import argparse

from agent.errors import OperationError
from agent.output import answer
from agent.pool import files
from agent.pool.access import with_session
from agent.pool.certificate_view import command_set, warn_of_crowd
from agent.pool.commanding import command, draft
from agent.pool.sending import Operation, carry_out
from agent.pool.session import PoolSession
from agent.pool.values import changes, plain, utc
from agent.pool.view import proposal_lines, proposal_value
from agent.trace import new_query_id
from contracts import fees, layout
from contracts.commands import AcceptSet, CancelProposal, Command, ProposeParams, ProposeSet, ProposeUpgrade
from contracts.model import CertificateKind, PoolState, Proposal, UpgradeTarget

KINDS = {
    "set": CertificateKind.PROPOSE_SET,
    "params": CertificateKind.PROPOSE_PARAMS,
    "upgrade": CertificateKind.PROPOSE_UPGRADE,
}
TARGETS = {target.name.lower(): target for target in UpgradeTarget}


def params_show(options: argparse.Namespace) -> int:
    """Show the parameters in force, as a file that `params propose` reads, and those that are proposed."""

    async def show(session: PoolSession) -> int:
        state, now_s = await session.reader.state(), await session.now_s()
        proposed = [each for each in state.pending if each.kind is CertificateKind.PROPOSE_PARAMS]
        value = {
            "params": plain(state.params),
            "proposed": proposal_value(proposed[0], state, now_s) if proposed else None,
        }
        text = files.params_toml(state.params)
        for proposal in proposed:
            text += "\n" + "\n".join(f"# {line}" for line in proposal_lines(proposal_value(proposal, state, now_s)))
        return answer(options, value, text)

    return with_session(options, show)


def params_propose(options: argparse.Namespace) -> int:
    """Propose other parameters: those in force with what the file changes."""

    async def make(_session: PoolSession, state: PoolState) -> Command:
        params = files.read_params(options.file, state.params)
        if not changes(state.params, params):
            raise OperationError(f"{options.file}: changes nothing")
        return ProposeParams(gov_seqno=state.gov_seqno + 1, params=params)

    return command(options, make)


def params_apply(options: argparse.Namespace) -> int:
    """Put the proposed parameters in force, once they waited long enough."""

    async def act(session: PoolSession) -> int:
        state = await session.reader.state()
        proposal = await ready(session, state, CertificateKind.PROPOSE_PARAMS)
        operation = Operation(
            what="the change of parameters",
            dest=session.pool,
            value_nanoton=fees.APPLY_NANOTON,
            body=layout.apply_params_body(query_id=new_query_id()),
            final=state.rewards,
        )
        rehearsed = await carry_out(session, options, operation)
        if rehearsed is not None:
            return rehearsed
        changed = changes(state.params, proposal.params)
        return answer(options, {"applied": plain(proposal.params)}, "\n".join(["in force now:", *changed]))

    return with_session(options, act)


def set_show(options: argparse.Namespace) -> int:
    """Show the operator set in force, as a file that `set propose` reads."""

    async def show(session: PoolSession) -> int:
        state, now_s = await session.reader.state(), await session.now_s()
        proposed = [each for each in state.pending if each.kind is CertificateKind.PROPOSE_SET]
        value = {
            "current": None if state.operator_set is None else command_set(state.operator_set),
            "previous": None if state.previous_set is None else command_set(state.previous_set),
            "proposed": proposal_value(proposed[0], state, now_s) if proposed else None,
        }
        text = "# the owner runs this pool"
        if state.operator_set is not None:
            text = f"# set {state.operator_set.set_id}\n{files.set_toml(state.operator_set)}"
        for proposal in proposed:
            text += "\n" + "\n".join(f"# {line}" for line in proposal_lines(proposal_value(proposal, state, now_s)))
        return answer(options, value, text)

    return with_session(options, show)


def set_propose(options: argparse.Namespace) -> int:
    """Propose other operators; the certificate file carries them, the chain their hash."""

    async def act(session: PoolSession) -> int:
        state = await session.reader.state()
        operators = files.read_set(options.file, set_id=_next_set_id(state))
        warn_of_crowd(operators)
        made = ProposeSet(gov_seqno=state.gov_seqno + 1, set_hash=layout.operator_set_cell(operators).hash)
        return await draft(session, options, state, made, operator_set=operators)

    return with_session(options, act)


def set_accept(options: argparse.Namespace) -> int:
    """Have the proposed operators take over: they sign it themselves."""

    async def make(session: PoolSession, state: PoolState) -> Command:
        operators = files.read_set(options.file, set_id=_next_set_id(state))
        proposal = await ready(session, state, CertificateKind.PROPOSE_SET)
        if proposal.hash != layout.operator_set_cell(operators).hash:
            raise OperationError(f"{options.file}: not the set that was proposed ({proposal.hash.hex()[:16]})")
        return AcceptSet(operator_set=operators)

    return command(options, make)


def _next_set_id(state: PoolState) -> int:
    if state.operator_set is None:
        raise OperationError("the owner runs this pool: `gpupool pool hand-over` gives it its first operator set")
    return state.operator_set.set_id + 1


def upgrade_propose(options: argparse.Namespace) -> int:
    """Propose other code for one of the contracts."""
    code = files.read_code(options.file)

    async def make(_session: PoolSession, state: PoolState) -> Command:
        return ProposeUpgrade(gov_seqno=state.gov_seqno + 1, target=TARGETS[options.target], code_hash=code.hash)

    return command(options, make)


def upgrade_apply(options: argparse.Namespace) -> int:
    """Put the proposed code in force, once it waited long enough."""
    code = files.read_code(options.file)

    async def act(session: PoolSession) -> int:
        state = await session.reader.state()
        proposal = await ready(session, state, CertificateKind.PROPOSE_UPGRADE)
        if proposal.hash != code.hash:
            raise OperationError(f"{options.file}: not the code that was proposed ({proposal.hash.hex()[:16]})")
        if state.is_paused(await session.now_s()):
            raise OperationError("the pool is paused; its code is not changed meanwhile")
        targets = {UpgradeTarget.REWARDS: state.rewards, UpgradeTarget.REGISTRY: state.registry}
        operation = Operation(
            what="the upgrade",
            dest=session.pool,
            value_nanoton=fees.APPLY_NANOTON,
            body=layout.apply_upgrade_body(code, query_id=new_query_id()),
            final=targets.get(proposal.target, session.pool),
        )
        rehearsed = await carry_out(session, options, operation)
        if rehearsed is not None:
            return rehearsed
        name = proposal.target.name.lower()
        text = (
            f"the {name}'s code is {code.hash.hex()} now; a gpupool of the version that has it is needed from here on"
        )
        return answer(options, {"target": name, "code_hash": code.hash.hex()}, text)

    return with_session(options, act)


def cancel(options: argparse.Namespace) -> int:
    """Withdraw a proposal."""
    kind = KINDS[options.kind]

    async def make(_session: PoolSession, state: PoolState) -> Command:
        _proposal(state, kind)
        return CancelProposal(gov_seqno=state.gov_seqno + 1, proposal=kind)

    return command(options, make)


async def ready(session: PoolSession, state: PoolState, kind: CertificateKind) -> Proposal:
    """The proposal of this kind. Raises `OperationError` unless there is one and now is its time."""
    proposal = _proposal(state, kind)
    now_s, ready_s, expires_s = await session.now_s(), proposal.ready_s(state.params), proposal.expires_s(state.params)
    if now_s < ready_s:
        raise OperationError(f"it waits until {utc(ready_s)}; try again then")
    if now_s > expires_s:
        raise OperationError(f"it expired {utc(expires_s)}: propose it anew")
    return proposal


def _proposal(state: PoolState, kind: CertificateKind) -> Proposal:
    found = next((each for each in state.pending if each.kind is kind), None)
    if found is None:
        raise OperationError(f"no {kind.name.lower().removeprefix('propose_')} is proposed")
    return found
