"""Where on chain an epoch settled: the blocks just before and after, and what the contracts hold in them.

Every operator can look it up while liteservers serve states so old; an archive liteserver serves all.

Source: `contracts/src/settlement.tolk` (`Landed`), `agent.audit.facts` for what is proven by it.
"""

from __future__ import annotations

from dataclasses import dataclass

from pytoniq_core import Cell

from agent.audit.bundle import ChainPart
from agent.errors import OperationError
from contracts import layout
from contracts.chain import Block, Chain
from contracts.errors import ChainUnavailableError, InvalidCellError
from contracts.layout.cells import Reader
from contracts.model import OPERATORS_MAX, Address, OpenEpoch, RewardsState, Signature
from contracts.opcodes import Op
from contracts.reader import PoolReader

STEPS_MAX = 64
"""How many blocks lie between a transaction and the masterchain block that shows it, at most."""
TRANSACTIONS_LOOKED_AT = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Landing:
    """An epoch's landing: the chain part of its bundle, the pool, and the first block after it."""

    part: ChainPart
    pool: Address
    landed_at: Block


async def find_landing(chain: Chain, pool: Address, epoch: int) -> Landing:
    """Look up where `epoch` settled, and keep what proves it.

    Raises:
        OperationError: it has not settled, or landed together with the next one.
        ContractsError: the chain does not answer, or serves states so old no more.
    """
    reader = PoolReader(chain, pool)
    head = await chain.head()
    rewards = await reader.rewards(head)
    if not 1 <= epoch <= rewards.landed.epoch:
        raise OperationError(f"epoch {epoch} has not settled; the last that did is {rewards.landed.epoch}")
    try:
        while rewards.landed.epoch > epoch:
            rewards = await reader.rewards((await _around(chain, reader, rewards))[0])
        if rewards.landed.epoch != epoch:
            raise OperationError(f"epoch {epoch} and the next one landed in one block: no state shows it by itself")
        before, after = await _around(chain, reader, rewards)
        opened = _open(await reader.rewards(before), epoch, before)
        registry_at = await chain.block_at(opened.finalized_s)
        return await _keep(chain, reader, (registry_at, before, after))
    except ChainUnavailableError as error:
        raise ChainUnavailableError(
            f"{error}; if epoch {epoch} settled hours ago, its states may be forgotten: name an archive liteserver"
        ) from error


async def _around(chain: Chain, reader: PoolReader, rewards: RewardsState) -> tuple[Block, Block]:
    """The last block before `rewards.landed` landed, and the first one that shows it."""
    epoch = rewards.landed.epoch
    block = await chain.block_at(rewards.landed.settled_s)
    is_before = (await reader.rewards(block)).landed.epoch < epoch
    for _ in range(STEPS_MAX):
        other = await chain.block_by_seqno(block.seqno + 1 if is_before else block.seqno - 1)
        if ((await reader.rewards(other)).landed.epoch < epoch) != is_before:
            return (block, other) if is_before else (other, block)
        block = other
    raise OperationError(f"the chain does not show how epoch {epoch} settled, near block {block.seqno}")


def _open(rewards: RewardsState, epoch: int, block: Block) -> OpenEpoch:
    found = next((each for each in rewards.open_epochs if each.epoch == epoch), None)
    if found is None:
        raise OperationError(f"block {block.seqno} does not show epoch {epoch} open, before it settled")
    return found


async def _keep(chain: Chain, reader: PoolReader, blocks: tuple[Block, Block, Block]) -> Landing:
    """Keep the block of the registry and the one before it, those around the landing, and the contracts there."""
    registry_at, before, after = blocks
    state = await reader.state(before)
    older = await chain.block_by_seqno(registry_at.seqno - 1)
    wanted = {block.seqno: block for block in (older, *blocks)}
    accounts = [
        await chain.kept_account(reader.pool, before),
        await chain.kept_account(state.rewards, before),
        await chain.kept_account(state.rewards, after),
        await chain.kept_account(state.registry, registry_at),
    ]
    part = ChainPart(
        registry_seqno=registry_at.seqno,
        open_seqno=before.seqno,
        landed_seqno=after.seqno,
        headers=tuple([await chain.kept_header(wanted[seqno]) for seqno in sorted(wanted)]),
        links=(),
        accounts=tuple(accounts),
    )
    return Landing(part=part, pool=reader.pool, landed_at=after)


async def submitted_signatures(chain: Chain, landing: Landing, cert_hash: bytes) -> list[Signature]:
    """The operators' signatures in the message that brought the certificate of this hash; none if it cannot be found.

    Raises:
        ContractsError: the chain does not answer.
    """
    for transaction in await chain.transactions(landing.pool, TRANSACTIONS_LOOKED_AT, landing.landed_at):
        if transaction.in_op != Op.POOL_SUBMIT_CERTIFICATE or transaction.in_body is None or transaction.aborted:
            continue
        try:
            values = layout.read_body(transaction.in_body).values
            if values["certificate"].hash == cert_hash:
                return _signatures(values["signatures"])
        except InvalidCellError:
            continue  # anybody may send the pool anything
    return []


def _signatures(chained: Cell) -> list[Signature]:
    """What `contracts.certificate.signature_chain` wrote."""
    found: list[Signature] = []
    link: Cell | None = chained
    while link is not None and len(found) < OPERATORS_MAX:
        reader = Reader(link, "signature")
        found.append(Signature(index=reader.uint(16), signature=reader.octets(64)))
        link = reader.maybe_ref()
        reader.end()
    return found
