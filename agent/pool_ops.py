"""What the devnet does with a pool without the command line: deploy, hand over, pay in.

The operations are those of `agent.pool`, each sent and followed until the contracts have done with it.
"""

from __future__ import annotations

from agent.pool.owner import deployment, first_operators, handing_over, require_owner, stands
from agent.pool.rewards import payment
from agent.pool.sending import perform
from agent.pool.session import PoolSession
from contracts import layout
from contracts.chain import Chain
from contracts.model import Address, OperatorSet, PoolParams
from contracts.reader import PoolReader
from contracts.wallet import Wallet


async def deploy_pool(
    chain: Chain, wallet: Wallet, *, pool_id: int, epoch_duration_s: int, params: PoolParams
) -> Address:
    """Deploy and initialise a pool owned by `wallet`; its first epoch starts now.

    Raises:
        OperationError: a pool stands there already, the wallet has too little, or nothing appeared in time.
        ContractsError: the chain does not answer or refuses the message.
    """
    session = _session(chain, wallet, layout.pool_address(wallet.address, pool_id, epoch_duration_s))
    await perform(session, await deployment(session, pool_id=pool_id, epoch_duration_s=epoch_duration_s, params=params))
    await stands(session)
    return session.pool


async def hand_over(chain: Chain, wallet: Wallet, pool: Address, operator_set: OperatorSet) -> None:
    """Give the pool to its operators, for ever.

    Raises:
        OperationError: not the owner's wallet, handed over already, or not confirmed in time.
        ContractsError: the chain does not answer or refuses the message.
    """
    session = _session(chain, wallet, pool)
    await perform(session, handing_over(session, await require_owner(session), operator_set))


async def operators_of(reader: PoolReader) -> OperatorSet:
    """The first operator set: every registered participant, with weight 1. Raises `OperationError` if nobody is."""
    return first_operators(await reader.registry())


async def pay_in(chain: Chain, wallet: Wallet, pool: Address, amount_nanoton: int) -> None:
    """Pay TON into the running epoch's pot.

    Raises:
        OperationError: the wallet has too little, or it was not confirmed in time.
        ContractsError: the chain does not answer or refuses the message.
    """
    session = _session(chain, wallet, pool)
    await perform(session, await payment(session, amount_nanoton))


def _session(chain: Chain, wallet: Wallet, pool: Address) -> PoolSession:
    return PoolSession(chain, pool, global_id=wallet.global_id, wallet=wallet)
