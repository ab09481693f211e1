"""The chain, asked apart from the agent: liteservers one by one, then the pool through those that answer.

Everything is proven by the chain client before it is believed; the newest block's time is the only one that may lag.
What is not here in time is unknown, and hides nothing of what came before it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

import trio

from agent.doctor.facts import ChainFacts, Maybe, Nothing, PoolFacts, ServerFacts, Trial, Unknown
from agent.doctor.probing_files import Opened
from contracts.chain import Block, Chain, open_chain
from contracts.chain_values import LiteServer
from contracts.cocoon import UnacceptableWorkerError, WorkerRules, appraise_worker, read_worker
from contracts.errors import ContractAbsentError, ContractsError
from contracts.model import Address, Participant
from contracts.reader import PoolReader
from contracts.wallet import wallet_address

SERVERS_AT_ONCE = 8
"""Of the liteservers so many are asked at once, and the next ones only if none of those answers."""
TIMEOUT_S_MAX = 3.0
WHOLE_S = 10.0
ERRORS_SHOWN = 4

_UNREAD = Unknown("the chain is not reached")


@dataclass(slots=True)
class _Asked:
    """A liteserver, and what it said."""

    server: LiteServer
    chain: Chain
    block: Block | None = None
    error: str = "no answer in time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What came of it."""

    chain: ChainFacts
    pool: Maybe[PoolFacts]
    pool_absent: Trial


async def look_at_chain(opened: Opened) -> Seen:
    """Ask the chain, within `WHOLE_S`; cancellation closes every connection."""
    table = opened.config.chain
    timeout_s, deadline = min(table.timeout_s, TIMEOUT_S_MAX), trio.current_time() + WHOLE_S
    async with AsyncExitStack() as stack:
        asked = await _ask_servers(opened.servers, stack, timeout_s, deadline)
        good = [each.server for each in asked if each.block is not None]
        if not good:
            return unreached(opened, _errors(asked, len(opened.servers)), _servers(asked))
        through = await stack.enter_async_context(open_chain(good, trust_level=table.trust_level, timeout_s=timeout_s))
        return await _look(opened, through, asked, deadline)


async def _ask_servers(
    servers: Sequence[LiteServer], stack: AsyncExitStack, timeout_s: float, deadline: float
) -> list[_Asked]:
    """Ask for heads, some servers at once, until one of them has answered."""
    asked: list[_Asked] = []
    with trio.CancelScope(deadline=deadline):
        for first in range(0, len(servers), SERVERS_AT_ONCE):
            some = []
            for server in servers[first : first + SERVERS_AT_ONCE]:
                chain = await stack.enter_async_context(open_chain([server], timeout_s=timeout_s))
                some.append(_Asked(server, chain))
            asked += some
            async with trio.open_nursery() as nursery:
                for each in some:
                    nursery.start_soon(_ask_head, each)
            if any(each.block is not None for each in some):
                break
    return asked


def unreached(opened: Opened, error: str, servers: tuple[ServerFacts, ...] = ()) -> Seen:
    """What there is to say without the chain."""
    chain = ChainFacts(
        error=error,
        conflict=None,
        global_id=_UNREAD,
        wanted_id=opened.config.pool.global_id,
        clock_ahead_s=_UNREAD,
        servers=servers,
        servers_known=len(opened.servers),
    )
    return Seen(chain=chain, pool=_UNREAD, pool_absent=_UNREAD)


def _errors(asked: list[_Asked], known: int) -> str:
    shown = "; ".join(each.error for each in asked[:ERRORS_SHOWN])
    more = f"; and {len(asked) - ERRORS_SHOWN} more" if len(asked) > ERRORS_SHOWN else ""
    return f"{shown}{more}; {len(asked)} of {known} asked"


def _servers(asked: list[_Asked]) -> tuple[ServerFacts, ...]:
    return tuple(
        ServerFacts(name=str(each.server), error=each.error)
        if each.block is None
        else ServerFacts(name=str(each.server), error=None, time_s=each.block.time_s)
        for each in asked
    )


async def _ask_head(asked: _Asked) -> None:
    try:
        asked.block = await asked.chain.head()
    except ContractsError as error:
        asked.error = str(error)


async def _look(opened: Opened, through: Chain, asked: list[_Asked], deadline: float) -> Seen:
    """The chain through all servers that answer, then the pool; what comes too late is unknown."""
    seen = unreached(opened, f"together they give no block within {WHOLE_S:.0f} s", _servers(asked))
    with trio.CancelScope(deadline=deadline):
        async for more in _looking(opened, through, asked, seen):
            seen = more
    return seen


async def _looking(opened: Opened, through: Chain, asked: list[_Asked], seen: Seen) -> AsyncIterator[Seen]:
    """More and more of it."""
    try:
        block = await through.head()
    except ContractsError as error:
        yield unreached(opened, str(error), seen.chain.servers)
        return
    late = Unknown(f"the pool was not read within {WHOLE_S:.0f} s")
    facts = replace(
        seen.chain,
        error=None,
        conflict=Unknown("the liteservers were not compared in time"),
        global_id=block.global_id,
        clock_ahead_s=int(time.time()) - block.time_s,
    )
    yield Seen(chain=facts, pool=late, pool_absent=late)
    facts = replace(facts, conflict=await _conflict(asked))
    yield Seen(chain=facts, pool=late, pool_absent=late)
    pool, absent = await _look_at_pool(opened, through, block)
    yield Seen(chain=facts, pool=pool, pool_absent=absent)


async def _look_at_pool(opened: Opened, through: Chain, block: Block) -> tuple[Maybe[PoolFacts], Trial]:
    if block.global_id != opened.config.pool.global_id:
        wrong = Unknown("the liteservers are of another network")
        return wrong, wrong
    try:
        return await _pool(opened, through, block), None
    except ContractAbsentError as error:
        return Unknown("there is no pool at the address"), str(error)
    except ContractsError as error:
        unread = Unknown(f"the pool cannot be read: {error}")
        return unread, unread


async def _conflict(asked: list[_Asked]) -> str | None:
    """Whether two servers show another block of one number: the highest that all of them have."""
    reached = [each for each in asked if each.block is not None]
    if len(reached) < 2:
        return None
    seqno = min(each.block.seqno for each in reached if each.block is not None)
    blocks: dict[str, Block] = {}

    async def ask(each: _Asked) -> None:
        try:
            blocks[str(each.server)] = await each.chain.block_by_seqno(seqno)
        except ContractsError:
            return  # it was asked for its head, and said so there if it is away

    async with trio.open_nursery() as nursery:
        for each in reached:
            nursery.start_soon(ask, each)
    if len({block.root_hash for block in blocks.values()}) < 2:
        return None
    shown = ", ".join(f"{name} {block.root_hash.hex()[:16]}" for name, block in sorted(blocks.items()))
    return f"liteservers show different blocks {seqno}: {shown}"


async def _pool(opened: Opened, chain: Chain, block: Block) -> PoolFacts:
    """Read the pool and this node in it. Raises `ContractsError`."""
    config = opened.config
    reader = PoolReader(chain, config.pool.contract)
    state, rewards = await reader.state(block), await reader.rewards(block)
    registry = await reader.registry(block)
    entry: Maybe[Participant | None] = Unknown("the node key cannot be used")
    if opened.node_key is not None:
        entry = _entry_of(registry, opened.node_key.public)
    wallet: Maybe[Address] = Unknown("the wallet key cannot be used")
    balance: Maybe[int] = Unknown("the wallet key cannot be used")
    if opened.wallet_key is not None:
        key, version = opened.wallet_key.public, config.wallet.version
        wallet = wallet_address(key, version, global_id=config.pool.global_id)
        balance = (await chain.account(wallet, block)).balance_nanoton
    policy = (opened.policies or {}).get(rewards.running.terms.policy_hash)
    rules = None
    if policy is not None:
        rules = WorkerRules(
            code_hashes=frozenset(map(bytes.fromhex, policy.receipts.worker_codes)),
            proxies=frozenset(map(bytes.fromhex, policy.receipts.worker_proxies)),
        )
    worker, tokens = await _worker(chain, block, entry, rules)
    return PoolFacts(
        time_s=block.time_s,
        state=state,
        rewards=rewards,
        entry=entry,
        wallet=wallet,
        wallet_nanoton=balance,
        worker=worker,
        worker_tokens=tokens,
        is_next_registered=opened.next_node_key is not None
        and _entry_of(registry, opened.next_node_key.public) is not None,
        wallets_node_key=next((each.node_key for each in registry if each.address == wallet and each != entry), None),
    )


def _entry_of(registry: Sequence[Participant], public: bytes) -> Participant | None:
    return next((each for each in registry if each.node_key == public), None)


async def _worker(
    chain: Chain, block: Block, entry: Maybe[Participant | None], rules: WorkerRules | None
) -> tuple[Trial, Maybe[int]]:
    """Whether the own worker contract counts, and what it was ever paid for."""
    if isinstance(entry, Unknown):
        return entry, entry
    if entry is None or entry.worker is None:
        none = Nothing("no worker contract is named")
        return none, none
    if rules is None:
        unknown = Unknown("the policy in force is not here")
        return unknown, unknown
    try:
        worker = await read_worker(chain, entry.worker, block)
        appraise_worker(worker, rules, entry.address)
    except (UnacceptableWorkerError, ContractAbsentError) as error:
        return str(error), Unknown("the worker contract does not count")
    except ContractsError as error:
        unknown = Unknown(f"the worker contract cannot be read: {error}")
        return unknown, unknown
    return None, worker.tokens
