"""What an owner does with a pool of its own: deploy it, and hand it over to its operators for ever.

What it commands in between stands in `commanding`: the same commands come from the operators afterwards.

Source: CONTRACTS, "Phases".
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import suppress

import trio

from agent import arguments
from agent.errors import ConfigError, OperationError
from agent.identity import load_key
from agent.output import EXIT_USAGE, answer, note
from agent.pool import files
from agent.pool.access import access_of, with_access, with_session
from agent.pool.certificate_view import warn_of_crowd
from agent.pool.sending import CONFIRM_INTERVAL_S, CONFIRM_TIMEOUT_S, Operation, carry_out, perform
from agent.pool.session import PoolSession
from agent.pool.values import lines, plain
from agent.screens import operators_text, operators_value
from agent.trace import new_query_id
from contracts import fees, layout
from contracts.errors import ContractAbsentError, InvalidValueError
from contracts.model import (
    OPERATORS_MAX,
    Address,
    Operator,
    OperatorSet,
    Participant,
    ParticipantStatus,
    PoolMetadata,
    PoolParams,
    PoolState,
    require_uint,
)
from contracts.wallet import wallet_address


def deploy(options: argparse.Namespace) -> int:
    """Deploy a pool."""
    params, metadata = files.params_for_deploy(options)
    try:
        require_uint("pool_id", options.pool_id, 64)
        require_uint("epoch_seconds", options.epoch_seconds, 31)
    except InvalidValueError as error:
        raise ConfigError(f"pool deploy: {error}") from error
    if options.epoch_seconds == 0:
        raise ConfigError("--epoch-seconds 0: expected at least a second")
    cocoon_root = arguments.parse_address("--cocoon-root", options.cocoon_root) if options.cocoon_root else None
    access = access_of(options)
    owner = wallet_address(load_key(options.wallet_key).public, access.wallet_version, global_id=access.global_id)
    pool = layout.pool_address(owner, options.pool_id, options.epoch_seconds)

    async def act(session: PoolSession) -> int:
        operation = await deployment(
            session,
            pool_id=options.pool_id,
            epoch_duration_s=options.epoch_seconds,
            params=params,
            metadata=metadata,
            cocoon_root=cocoon_root,
            registration_open=not options.registration_shut,
        )
        rehearsed = await carry_out(session, options, operation)
        if rehearsed is not None:
            return rehearsed
        await stands(session)
        value = {
            "pool": str(pool),
            "owner": str(owner),
            "policy_hash": params.terms.policy_hash.hex(),
            "params": plain(params),
            "metadata": plain(metadata),
        }
        text = f"pool      {pool}\nowner     {owner}\n"
        return answer(options, value, text + "\n".join(f"  {line}" for line in lines(plain(params))))

    return with_access(access, pool, act)


async def deployment(
    session: PoolSession,
    *,
    pool_id: int,
    epoch_duration_s: int,
    params: PoolParams,
    metadata: PoolMetadata | None = None,
    cocoon_root: Address | None = None,
    registration_open: bool = True,
) -> Operation:
    """Deploy and initialise a pool owned by the session's wallet; its first epoch starts when it lands.

    Raises:
        OperationError: a pool stands there already.
    """
    init = layout.pool_state_init(session.wallet.address, pool_id, epoch_duration_s)
    pool = layout.address_of(init)
    if (await session.chain.account(pool)).active:
        raise OperationError(f"a pool stands at {pool} already; choose another --pool-id")
    body = layout.init_body(
        params,
        registration_open=registration_open,
        cocoon_root=cocoon_root,
        metadata=metadata,
        query_id=new_query_id(),
    )
    return Operation(
        what=f"the deployment of the pool at {pool}",
        dest=pool,
        value_nanoton=fees.INIT_NANOTON,
        body=body,
        state_init=init,
    )


async def stands(session: PoolSession) -> None:
    """Wait until the pool's children stand, which it deploys itself. Raises `OperationError` after a minute."""
    with trio.move_on_after(CONFIRM_TIMEOUT_S):
        while True:
            with suppress(ContractAbsentError):
                await session.reader.rewards()
                await session.reader.registry()
                return
            await trio.sleep(CONFIRM_INTERVAL_S)
    raise OperationError(f"the contracts of the pool at {session.pool} did not appear within {CONFIRM_TIMEOUT_S:.0f} s")


def hand_over(options: argparse.Namespace) -> int:
    """Hand the pool to its operators; without --yes, or if they are not those shown before, only show who that is."""

    async def act(session: PoolSession) -> int:
        state = await require_owner(session)
        participants = await session.reader.registry()
        operators = files.read_set(options.set, set_id=1) if options.set else first_operators(participants)
        require_registered(operators, participants)
        value = operators_value(operators, participants)
        text = operators_text(value)
        warn_of_crowd(operators)
        if options.dry_run:
            return await carry_out(session, options, handing_over(session, state, operators)) or 0
        missing = _missing_consent(options, len(operators.operators))
        if missing is not None:
            answer(options, {**value, "done": False}, f"pool {session.pool} would be run by {text}")
            note(f"nothing was done; {missing}")
            return EXIT_USAGE
        await perform(session, handing_over(session, state, operators))
        return answer(options, {**value, "done": True}, f"pool {session.pool} is now run by {text}")

    return with_session(options, act)


def _missing_consent(options: argparse.Namespace, count: int) -> str | None:
    """What has to be typed yet to hand over to these; who registers meanwhile must not come in unseen."""
    if options.operators not in (None, count):
        return f"these are {count} operators, not {options.operators}: look again who they are"
    if not options.yes:
        count_too = "" if options.set else f" --operators {count}"
        return f"a hand-over cannot be undone: add{count_too} --yes to do it"
    if options.set is None and options.operators is None:
        return f"a hand-over cannot be undone: add --operators {count} if these are the ones"
    return None


def handing_over(session: PoolSession, state: PoolState, operators: OperatorSet) -> Operation:
    """Give the pool to its operators, for ever."""
    return Operation(
        what="the hand-over",
        dest=session.pool,
        value_nanoton=fees.enable_quorum_nanoton(len(operators.operators)),
        body=layout.enable_quorum_body(operators, query_id=new_query_id()),
        final=state.rewards,
    )


async def require_owner(session: PoolSession) -> PoolState:
    """The pool's state. Raises `OperationError` unless its owner still runs it, and is this wallet."""
    state = await session.reader.state()
    if state.owner != session.wallet.address:
        raise OperationError(f"the pool's owner is {state.owner}, not this wallet ({session.wallet.address})")
    if state.operator_set is not None:
        raise OperationError("the pool is run by its operators already")
    return state


def require_registered(operators: OperatorSet, participants: Sequence[Participant]) -> None:
    """Raise `OperationError` for an operator who is not registered: nobody proved then that he holds the key."""
    registered = {each.node_key for each in participants}
    for each in operators.operators:
        if each.node_key not in registered:
            raise OperationError(
                f"node key {each.node_key.hex()} is not registered: nobody proved to hold it, and a hand-over to "
                "keys that nobody holds cannot be undone"
            )


def first_operators(participants: Sequence[Participant], weight: int = 1) -> OperatorSet:
    """The first operator set: every active participant, with the same weight.

    Raises:
        OperationError: nobody is active, more are than can be operators, or two of them have one node key.
    """
    active = [each for each in participants if each.status is ParticipantStatus.ACTIVE]
    if not active:
        raise OperationError("nobody is registered and active; participants register before the hand-over")
    if len(active) > OPERATORS_MAX:
        raise OperationError(f"{len(active)} are active, at most {OPERATORS_MAX} can be operators: give --set")
    made = OperatorSet(set_id=1, operators=tuple(Operator(node_key=p.node_key, weight=weight) for p in active))
    try:
        made.require_distinct()
    except InvalidValueError as error:
        raise OperationError(f"{error}: give --set") from error
    return made
