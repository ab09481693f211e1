"""What a pool's owner and participants do on chain: deploy, hand over, register, pay in, claim.

Each operation reads the contracts first, refuses what cannot succeed with a sentence that says why, sends
one message through a wallet, and waits until the chain shows the result.

Source: CONTRACTS, "Must exist", "Phases", "Cumulative entitlement".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import trio
from pytoniq_core import Cell

from agent.errors import OperationError
from agent.screens import ton_exact
from contracts import fees, layout, proof
from contracts.chain import Chain
from contracts.errors import ContractAbsentError
from contracts.model import NANO, Address, Operator, OperatorSet, Participant, PoolParams, PoolState
from contracts.reader import PoolReader
from contracts.wallet import OutMessage, Wallet
from gossip.settlement import Settlement

CONFIRM_TIMEOUT_S = 60.0
CONFIRM_INTERVAL_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """Outcome of a claim: what was paid now, ever, and what the settlement says was earned."""

    paid_now_nanoton: int
    paid_nanoton: int
    earned_nanoton: int


async def deploy_pool(
    chain: Chain, wallet: Wallet, *, pool_id: int, epoch_duration_s: int, params: PoolParams
) -> Address:
    """Deploy and initialise a pool owned by `wallet`; its first epoch starts now.

    Raises:
        OperationError: a pool stands there already, the wallet has too little, or nothing appeared in time.
        ContractsError: the chain does not answer or refuses the message.
    """
    init = layout.pool_state_init(wallet.address, pool_id, epoch_duration_s)
    pool = layout.address_of(init)
    if (await chain.account(pool)).active:
        raise OperationError(f"a pool stands at {pool} already; choose another --pool-id")
    await _send(chain, wallet, pool, fees.INIT_NANOTON, layout.init_body(params), state_init=init)
    reader = PoolReader(chain, pool)

    async def stands() -> bool:
        await reader.rewards()
        await reader.registry()
        return True

    await _until(stands, f"the pool at {pool} did not appear")
    return pool


async def hand_over(chain: Chain, wallet: Wallet, pool: Address, operator_set: OperatorSet) -> None:
    """Give the pool to its operators, for ever.

    Raises:
        OperationError: not the owner's wallet, handed over already, or not confirmed in time.
        ContractsError: the chain does not answer or refuses the message.
    """
    reader = PoolReader(chain, pool)
    await require_owner(reader, wallet)
    value = fees.enable_quorum_nanoton(len(operator_set.operators))
    await _send(chain, wallet, pool, value, layout.enable_quorum_body(operator_set))
    await _until(_holds(reader, lambda s: s.operator_set == operator_set), "the hand-over was not confirmed")


async def require_owner(reader: PoolReader, wallet: Wallet) -> None:
    """Raise `OperationError` unless the pool is still run by its owner, and that is this wallet."""
    state = await reader.state()
    if state.owner != wallet.address:
        raise OperationError(f"the pool's owner is {state.owner}, not this wallet ({wallet.address})")
    if state.operator_set is not None:
        raise OperationError("the pool is run by its operators already")


async def operators_of(reader: PoolReader, weight: int = 1) -> OperatorSet:
    """The first operator set: every registered participant, with the same weight.

    Raises:
        OperationError: nobody is registered.
    """
    return first_operators(await reader.registry(), weight)


def first_operators(participants: Sequence[Participant], weight: int = 1) -> OperatorSet:
    """The same, of a registry that was read. Raises as `operators_of` does."""
    if not participants:
        raise OperationError("nobody is registered yet; participants register before the hand-over")
    return OperatorSet(set_id=1, operators=tuple(Operator(node_key=p.node_key, weight=weight) for p in participants))


async def register(chain: Chain, wallet: Wallet, pool: Address, *, node_key: bytes, stake_nanoton: int) -> None:
    """Stake and enter the registry as the wallet's address.

    Raises:
        OperationError: closed, full, registered already, stake or balance too small, or not confirmed.
        ContractsError: the chain does not answer or refuses the message.
    """
    reader = PoolReader(chain, pool)
    state, participants = await reader.state(), await reader.registry()
    if any(p.address == wallet.address or p.node_key == node_key for p in participants):
        raise OperationError("this wallet or node key is registered already")
    if not state.registration_open or len(participants) >= state.max_participants:
        raise OperationError("the pool takes no participants now: registration is closed or the pool is full")
    if stake_nanoton < state.min_stake_nanoton:
        raise OperationError(f"the least stake is {ton_exact(state.min_stake_nanoton)}")
    body = layout.register_body(stake_nanoton=stake_nanoton, node_key=node_key)
    await _send(chain, wallet, pool, stake_nanoton + fees.REGISTRATION_NANOTON, body)

    async def registered() -> bool:
        return any(p.node_key == node_key for p in await reader.registry())

    await _until(registered, "if it was refused, the stake came back; the registration was not confirmed")


async def pay_in(chain: Chain, wallet: Wallet, pool: Address, amount_nanoton: int) -> None:
    """Pay TON into the running epoch's pot.

    Raises:
        OperationError: the wallet has too little.
        ContractsError: the chain does not answer or refuses the message.
    """
    state = await PoolReader(chain, pool).state()
    await _send(chain, wallet, state.rewards, amount_nanoton, layout.receive_payment_body())


async def claim(chain: Chain, wallet: Wallet, pool: Address, settlement: Settlement, participant: Address) -> Claimed:
    """Have the contract pay `participant` everything that it earned and was not paid yet.

    `settlement` must be the last one that landed, or the one before: its leaf proves the claim. Anyone may
    pay the fee.

    Raises:
        OperationError: the settlement is neither of these, nothing is due, or not confirmed in time.
        ContractsError: the chain does not answer or refuses the message.
    """
    reader = PoolReader(chain, pool)
    state, rewards = await reader.state(), await reader.rewards()
    tree = proof.totals_tree(settlement.leaves)
    if tree.root_hash not in (rewards.landed.totals_root, rewards.landed.previous_root):
        raise OperationError(
            f"this agent knows the settlement of epoch {settlement.payload.epoch}, the chain that of epoch "
            f"{rewards.landed.epoch}; try again when the agent caught up"
        )
    leaf = next((leaf for leaf in settlement.leaves if leaf.participant == participant), None)
    before = rewards.paid_nanoton.get(participant.account, 0)
    if leaf is None or leaf.earned_nanoton <= before:
        raise OperationError(f"nothing is due to {participant}: {ton_exact(before)} were paid")
    body = layout.claim_body(participant, tree.prove(participant))
    await _send(chain, wallet, state.rewards, fees.CLAIM_NANOTON, body)
    paid = before

    async def was_paid() -> bool:
        nonlocal paid
        paid = (await reader.rewards()).paid_nanoton.get(participant.account, 0)
        return paid > before

    await _until(was_paid, "the claim was not confirmed")
    return Claimed(paid_now_nanoton=paid - before, paid_nanoton=paid, earned_nanoton=leaf.earned_nanoton)


async def _send(
    chain: Chain, wallet: Wallet, dest: Address, value_nanoton: int, body: Cell, *, state_init: Cell | None = None
) -> None:
    balance = (await chain.account(wallet.address)).balance_nanoton
    if balance < value_nanoton + NANO // 20:
        raise OperationError(
            f"wallet {wallet.address} holds {ton_exact(balance)}; this takes {ton_exact(value_nanoton)} and gas"
        )
    message = OutMessage(dest=dest, value_nanoton=value_nanoton, body=body, bounce=True, state_init=state_init)
    await wallet.transfer([message])


def _holds(reader: PoolReader, condition: Callable[[PoolState], bool]) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return condition(await reader.state())

    return check


async def _until(condition: Callable[[], Awaitable[bool]], failure: str) -> None:
    with trio.move_on_after(CONFIRM_TIMEOUT_S):
        while True:
            # What is being deployed does not stand yet: that is what is waited for.
            with suppress(ContractAbsentError):
                if await condition():
                    return
            await trio.sleep(CONFIRM_INTERVAL_S)
    raise OperationError(f"{failure} within {CONFIRM_TIMEOUT_S:.0f} s")
