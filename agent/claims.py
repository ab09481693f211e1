"""Finds the landed settlement that a claim is proved from: from the running agent, else from its journal.

Whatever they say is held against the payload hash on chain. An agent that runs learns of a settlement a
moment after it landed, so it is asked again for a while; a journal that nobody writes is not.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from agent.client import NoAgentError, NotThereError, ask_agent
from agent.config import Config
from agent.errors import JournalError, OperationError
from agent.identity import load_key
from agent.journal import open_journal
from contracts.chain import Chain
from contracts.model import Landed
from contracts.reader import PoolReader
from gossip.errors import InvalidMessageError
from gossip.records import PoolId
from gossip.settlement import Settlement, verify_checkpoint

CATCH_UP_S = 60.0
CATCH_UP_INTERVAL_S = 1.0


async def landed_settlement(chain: Chain, config: Config, tell: Callable[[str], object]) -> Settlement:
    """The settlement that landed last, as this agent knows it; waits `CATCH_UP_S` for one that runs, and tells so.

    Raises:
        OperationError: none has landed, or this agent does not know it (yet).
        KeyFileError: no agent runs, and its node key, which opens the journal, cannot be read.
        ContractsError: the chain does not answer.
    """
    reader = PoolReader(chain, config.pool.contract)
    patience = trio.current_time() + CATCH_UP_S
    told = 0
    while True:
        landed = (await reader.rewards()).landed
        if landed.epoch == 0:
            raise OperationError("no epoch is settled yet; there is nothing to claim")
        data, is_final = await trio.to_thread.run_sync(_checkpoint, config, landed.payload_hash)
        if data is not None:
            return _verified(data, landed)
        if is_final or trio.current_time() >= patience:
            raise OperationError(f"this agent does not know the settlement of epoch {landed.epoch} yet; try again soon")
        if landed.epoch != told:
            tell(f"waiting for the agent to learn of the settlement of epoch {landed.epoch}")
            told = landed.epoch
        await trio.sleep(CATCH_UP_INTERVAL_S)


def _verified(data: bytes, landed: Landed) -> Settlement:
    try:
        return verify_checkpoint(data, landed.payload_hash)
    except InvalidMessageError as error:
        raise OperationError(f"this agent has not caught up with epoch {landed.epoch} yet: {error}") from error


def _checkpoint(config: Config, payload_hash: bytes) -> tuple[bytes | None, bool]:
    """The checkpoint, and whether asking again is in vain."""
    try:
        return ask_agent(config, f"/-/checkpoint?payload_hash={payload_hash.hex()}"), False
    except NotThereError:
        return None, False
    except NoAgentError:
        return _from_journal(config, payload_hash), True  # nothing runs: its journal is free to be read


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
