"""A command and its certificate for people and for `--json`: what is signed, what it means here, who signed, what next.

Everything is read from what is signed, and from the pool's proven state; nothing from a file's readable part.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent.certificates import CertificateFile
from agent.output import note
from agent.pool.session import PoolSession
from agent.pool.values import changes, command_value, lines, span, utc
from agent.pool.view import APPLIED_BY
from agent.screens import ton_exact
from contracts import layout
from contracts.commands import (
    AcceptSet,
    Close,
    Command,
    FeesTo,
    OwnerMessage,
    ProposeParams,
    ProposeSet,
    ProposeUpgrade,
    Remove,
    Resume,
    SetMetadata,
    Slash,
)
from contracts.model import BPS, OperatorSet, Participant, PoolState

CROWD = 140
"""Of more operators than this, whose weights differ, a quorum may take more signatures than fit a message."""

IRREVERSIBLE = (Close, FeesTo, OwnerMessage, AcceptSet)

_CODES = ("pool_operator", "reward_distribution", "participant_registry")
_KEY_SHOWN = 16


def certificate_value(file: CertificateFile, signers: OperatorSet | None) -> dict[str, Any]:
    """A certificate as JSON. `signers`: the set whose quorum it needs, if known."""
    value = {
        "network": file.domain.global_id,
        "pool": str(file.domain.pool),
        "set_id": file.domain.set_id,
        "valid_until_s": file.valid_until_s,
        "hash": file.cell.hash.hex(),
        "command": command_value(file.command),
        "operator_set": None if file.operator_set is None else command_set(file.operator_set),
        "signed_by": [node_key.hex() for node_key, _ in file.signatures],
    }
    if signers is None:
        return {**value, "missing": None, "weight": None, "total_weight": None, "is_quorum": None}
    weight = file.weigh(signers)[1]
    return {
        **value,
        "missing": [each.node_key.hex() for each in signers.operators if each.node_key.hex() not in value["signed_by"]],
        "weight": weight,
        "total_weight": signers.total_weight,
        "is_quorum": signers.is_quorum(weight),
    }


def command_set(operators: OperatorSet) -> dict[str, Any]:
    """An operator set as JSON."""
    return {
        "set_id": operators.set_id,
        "total_weight": operators.total_weight,
        "operators": [{"node_key": each.node_key.hex(), "weight": each.weight} for each in operators.operators],
    }


def command_lines(made: Command) -> list[str]:
    """A command for people: its kind, and a line a field."""
    value = command_value(made)
    return [f"command   {value['kind']}", *(f"  {line}" for line in lines(value)[1:])]


def certificate_lines(
    file: CertificateFile, signers: OperatorSet | None, context: list[str] | None = None
) -> list[str]:
    """A certificate for people; `context` (of `context_lines`) follows its command."""
    value = certificate_value(file, signers)
    out = [
        f"pool      {value['pool']} on network {value['network']}",
        f"set       {value['set_id']} signs it; it can land until {utc(value['valid_until_s'])}",
        f"hash      {value['hash']}",
        *command_lines(file.command),
    ]
    if value["operator_set"] is not None:
        out += [f"  {line}" for line in lines({"proposed": value["operator_set"]})]
    out += [f"  * {line}" for line in context or ()]
    if signers is None:
        return [*out, f"signatures {len(value['signed_by'])}"]
    quorum = "a quorum" if value["is_quorum"] else f"no quorum yet ({_least(signers)} needed)"
    out.append(f"signatures {len(value['signed_by'])}, weight {value['weight']} of {signers.total_weight}: {quorum}")
    members = {each.node_key.hex() for each in signers.operators}
    for title, keys in (
        ("signed", [key for key in value["signed_by"] if key in members]),
        ("missing", value["missing"]),
        ("strangers, who do not count", [key for key in value["signed_by"] if key not in members]),
    ):
        if keys:
            out.append(f"  {title}: {', '.join(key[:_KEY_SHOWN] for key in keys)}")
    return out


def warn_of_crowd(operators: OperatorSet) -> None:
    """Note it where the set may be unable to act: its lighter operators alone may be no quorum that fits."""
    if len(operators.operators) > CROWD and len({each.weight for each in operators.operators}) > 1:
        note(
            f"{len(operators.operators)} operators of unequal weights: acceptance may need more signatures than fit a "
            "message (about 145)"
        )


def next_step(path: Path, file: CertificateFile, signers: OperatorSet) -> str:
    """What has to be done with the file, and until when."""
    consent = " --yes" if isinstance(file.command, IRREVERSIBLE) else ""
    submit = f"`gpupool pool certificate submit {path}{consent}`"
    weight = file.weigh(signers)[1]
    if signers.is_quorum(weight):
        return f"next, until {utc(file.valid_until_s)}: {submit}, by anybody"
    return (
        f"next, until {utc(file.valid_until_s)}: operators of weight {_least(signers) - weight} or more run "
        f"`gpupool pool certificate sign {path} --yes`, then anybody {submit}"
    )


def _least(signers: OperatorSet) -> int:
    """The least weight that is a quorum."""
    return 2 * signers.total_weight // 3 + 1


async def context_lines(
    session: PoolSession, state: PoolState, made: Command, operator_set: OperatorSet | None = None
) -> list[str]:
    """What a command means for this pool now, a sentence a line. `operator_set`: the one it proposes, if known."""
    match made:
        case Slash() | Remove():
            participants = await session.reader.registry()
            entry = next((each for each in participants if each.address == made.target.participant), None)
            return [] if entry is None else [_about_stake(made, entry, state)]
        case FeesTo():
            pending = (await session.reader.rewards()).pending_fees_nanoton
            return [f"of {ton_exact(pending)} of operators' fees"]
        case ProposeSet() | AcceptSet():
            after = made.operator_set if isinstance(made, AcceptSet) else operator_set
            registered = {each.node_key for each in await session.reader.registry()}
            return [*_set_changes(state.operator_set, after, registered), *_waiting(made, state)]
        case _:
            return [*_meaning(made, state), *_waiting(made, state)]


def _about_stake(made: Slash | Remove, entry: Participant, state: PoolState) -> str:
    staked = ton_exact(entry.stake_nanoton)
    if isinstance(made, Remove):
        when = f"its stake of {staked} can be paid back {span(state.params.rules.withdrawal_delay_s)} later"
        if entry.pending_nanoton:
            from_ = utc(entry.withdraw_at_s)
            when = (
                f"its whole stake of {staked} can be paid back from {from_}, as it asked before: slash first, if at all"
            )
        return f"suspends it; {when}"
    amount = made.amount_nanoton or entry.stake_nanoton * state.params.rules.slash_bps // BPS
    taken = min(amount, entry.stake_nanoton)
    share = "" if made.amount_nanoton else f" ({state.params.rules.slash_bps / 100:g} %, the parameters' share)"
    return f"takes {ton_exact(taken)}{share} of the {staked} that are staked now, held for an appeal of 7 d"


def _meaning(made: Command, state: PoolState) -> Iterator[str]:
    match made:
        case ProposeParams():
            yield from (f"changes {change}" for change in changes(state.params, made.params))
        case SetMetadata():
            yield from (f"changes {change}" for change in changes(state.metadata, made.metadata))
        case ProposeUpgrade():
            known = made.code_hash == layout.code(_CODES[made.target]).hash
            yield f"the code is {'that' if known else 'NOT that'} of this version of gpupool"
        case Close():
            yield "for ever: nobody registers any more; what is owed is paid, stakes can be withdrawn"
        case Resume():
            yield "lets the guardian pause once more"
        case OwnerMessage():
            yield f"the body's hash is {made.body.hash.hex()}; whoever submits it pays the value"
        case _:
            return


def _set_changes(before: OperatorSet | None, after: OperatorSet | None, registered: set[bytes]) -> Iterator[str]:
    if after is None:
        yield "the set itself is not in this file: its operators cannot be seen from the hash"
        return
    old = {} if before is None else {each.node_key: each.weight for each in before.operators}
    new = {each.node_key: each.weight for each in after.operators}
    for node_key, weight in new.items():
        if node_key not in old:
            unproved = "" if node_key in registered else "; not registered here: nobody proved to hold this key"
            yield f"adds operator {node_key.hex()}, weight {weight}{unproved}"
        elif old[node_key] != weight:
            yield f"changes the weight of operator {node_key.hex()}: {old[node_key]} -> {weight}"
    yield from (f"drops operator {node_key.hex()}" for node_key in old if node_key not in new)


def _waiting(made: Command, state: PoolState) -> Iterator[str]:
    """Which proposal it replaces, and how long its own waits."""
    if not isinstance(made, ProposeParams | ProposeSet | ProposeUpgrade):
        return
    replaced = next((each for each in state.pending if each.kind is made.kind), None)
    if replaced is not None:
        yield f"replaces the proposal {replaced.hash.hex()[:_KEY_SHOWN]} of {utc(replaced.since_s)}"
    is_upgrade = isinstance(made, ProposeUpgrade)
    delay_s = state.params.upgrade_delay_s if is_upgrade else state.params.parameter_delay_s
    verb = APPLIED_BY[made.kind.name.lower().removeprefix("propose_")]
    yield f"waits {span(delay_s)} once it landed, then `gpupool pool {verb}` puts it in force, within 30 d"
