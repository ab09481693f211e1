"""Finds the landed settlement that a claim is proved from: from the running agent, else from its journal.

Whatever they say is held against the payload hash on chain.
"""

from __future__ import annotations

from agent.config import Config
from agent.errors import JournalError, OperationError
from agent.identity import load_key
from agent.journal import open_journal
from contracts.chain import Chain
from contracts.reader import PoolReader
from gossip.errors import InvalidMessageError
from gossip.records import PoolId
from gossip.settlement import Settlement, verify_checkpoint


async def landed_settlement(chain: Chain, config: Config) -> Settlement:
    """The settlement that landed last, as this agent knows it.

    Raises:
        OperationError: none has landed, or this agent does not know it (yet).
        ContractsError: the chain does not answer.
    """
    landed = (await PoolReader(chain, config.pool.contract).rewards()).landed
    if landed.epoch == 0:
        raise OperationError("no epoch is settled yet; there is nothing to claim")
    data = _from_agent(config) or _from_journal(config, landed.payload_hash)
    if data is None:
        raise OperationError(f"this agent does not know the settlement of epoch {landed.epoch} yet; try again soon")
    try:
        return verify_checkpoint(data, landed.payload_hash)
    except InvalidMessageError as error:
        raise OperationError(f"this agent has not caught up with epoch {landed.epoch} yet: {error}") from error


def _from_agent(config: Config) -> bytes | None:
    from agent.commands import ask_agent

    try:
        return ask_agent(config, "/-/checkpoint")
    except OperationError:
        return None  # not running: its journal is free to be read


def _from_journal(config: Config, payload_hash: bytes) -> bytes | None:
    node_key = load_key(config.resolve(config.identity.node_key_file)).public
    pool = PoolId(config.pool.global_id, config.pool.contract.account)
    try:
        journal = open_journal(config.journal_file, node_key=node_key, pool=pool)
    except JournalError as error:
        raise OperationError(f"neither the running agent nor its journal can be asked: {error}") from error
    try:
        return journal.checkpoint(payload_hash)
    finally:
        journal.close()
