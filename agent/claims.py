"""Finds the landed settlement that a claim is proved from: from the running agent, else from its journal.

Whatever they say is held against the payload hash on chain.
"""

from __future__ import annotations

from agent.client import NoAgentError, NotThereError, ask_agent
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
        KeyFileError: no agent runs, and its node key, which opens the journal, cannot be read.
        ContractsError: the chain does not answer.
    """
    landed = (await PoolReader(chain, config.pool.contract).rewards()).landed
    if landed.epoch == 0:
        raise OperationError("no epoch is settled yet; there is nothing to claim")
    data = _checkpoint(config, landed.payload_hash)
    if data is None:
        raise OperationError(f"this agent does not know the settlement of epoch {landed.epoch} yet; try again soon")
    try:
        return verify_checkpoint(data, landed.payload_hash)
    except InvalidMessageError as error:
        raise OperationError(f"this agent has not caught up with epoch {landed.epoch} yet: {error}") from error


def _checkpoint(config: Config, payload_hash: bytes) -> bytes | None:
    try:
        return ask_agent(config, f"/-/checkpoint?payload_hash={payload_hash.hex()}")
    except NotThereError:
        return None
    except NoAgentError:
        return _from_journal(config, payload_hash)  # nothing runs: its journal is free to be read


def _from_journal(config: Config, payload_hash: bytes) -> bytes | None:
    node_key = load_key(config.resolve(config.identity.node_key_file)).public
    pool = PoolId(config.pool.global_id, config.pool.contract.account)
    try:
        journal = open_journal(config.journal_file, node_key=node_key, pool=pool)
    except JournalError as error:
        raise OperationError(f"no agent answers, and its journal cannot be read: {error}") from error
    try:
        return journal.checkpoint(payload_hash)
    finally:
        journal.close()
