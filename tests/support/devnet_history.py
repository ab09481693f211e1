"""A settled past for tests of the dev network's onlooker and report: a chain that can be looked back into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import contract_states
import httpx
from epochs import Epochs
from pool_fixture import EPOCH_S, POT_NANOTON, START_S, key, operator_set, participant

from agent.devnet.layout import Seat
from agent.devnet.onlooker import Landing
from contracts.chain import Account, Block, TransactionSummary
from contracts.errors import ChainUnavailableError
from contracts.model import NANO, ZERO_HASH, Address, Landed, OpenEpoch, PoolState, RewardsState
from contracts.opcodes import Op
from contracts.reader import PoolReader
from gossip.settlement import Settlement, encode_checkpoint

POOL_ADDRESS = Address(0, bytes([7]) * 32)
FINALIZE_AFTER_S, SETTLE_AFTER_S = 2, 9


def settlements(count: int, n: int = 4) -> list[Settlement]:
    """`count` epochs of `n` participants that all work."""
    pool = Epochs(n)
    for author in pool.authors:
        author.prove()
    settled = []
    for _ in range(count):
        for author in pool.authors:
            author.work(tokens=1000 * (author.i + 1))
        settled.append(pool.settle())
    return settled


def end_s(epoch: int) -> int:
    return START_S + EPOCH_S * epoch


def open_epoch(epoch: int) -> OpenEpoch:
    """An epoch of one pool whose first one began under the owner."""
    return contract_states.open_epoch(
        epoch,
        start_s=end_s(epoch - 1),
        end_s=end_s(epoch),
        pot_nanoton=POT_NANOTON,
        fee_nanoton=NANO // 5,
        finalized_s=end_s(epoch) + FINALIZE_AFTER_S,
        set_id=0 if epoch == 1 else 1,
    )


def landing(settlement: Settlement) -> Landing:
    epoch = settlement.payload.epoch
    return Landing(
        settlement=settlement,
        pot=open_epoch(epoch),
        settled_s=end_s(epoch) + SETTLE_AFTER_S,
        certificate=bytes([epoch]) * 32,
        submitter="agent-0",
        transaction=bytes([epoch + 100]) * 32,
    )


@dataclass
class History(PoolReader):
    """Chain and reader at once: epoch k is finalized 2 s and settled 9 s after its end; one block a second."""

    settled: Sequence[Settlement]
    now_s: int = START_S
    is_away: bool = False
    looked_back: list[int] = field(default_factory=list)
    """Times of the older blocks that were read."""
    is_forgetful: bool = False
    """Shows no epoch as open, ever."""

    def __post_init__(self) -> None:
        self.pool = POOL_ADDRESS

    async def rewards(self, block: Block | None = None) -> RewardsState:
        self._require()
        now_s = self.now_s if block is None else block.time_s
        if block is not None:
            self.looked_back.append(block.time_s)
        landed = [s for s in self.settled if now_s >= end_s(s.payload.epoch) + SETTLE_AFTER_S]
        done = len(landed)
        is_open = now_s >= end_s(done + 1) + FINALIZE_AFTER_S and not self.is_forgetful
        opened = (open_epoch(done + 1),) if is_open else ()
        current = done + 1 + len(opened)
        last = landed[-1].payload if landed else None
        return contract_states.rewards_state(
            self.pool,
            start_s=end_s(current - 1),
            end_s=end_s(current),
            current_epoch=current,
            received_nanoton=NANO,
            open_epochs=opened,
            landed=Landed(
                epoch=last.epoch if last else 0,
                payload_hash=landed[-1].payload_hash if landed else ZERO_HASH,
                totals_root=last.totals_root if last else ZERO_HASH,
                previous_root=ZERO_HASH,
                total_earned_nanoton=last.total_earned_nanoton if last else 0,
                settled_s=end_s(last.epoch) + SETTLE_AFTER_S if last else 0,
            ),
        )

    async def state(self, block: Block | None = None) -> PoolState:
        self._require()
        return contract_states.pool_state(operator_set=operator_set(4))

    async def account(self, address: Address, block: Block | None = None) -> Account:
        raise NotImplementedError

    async def block_at(self, time_s: int) -> Block:
        return await self.block_by_seqno(time_s - START_S)

    async def block_by_seqno(self, seqno: int) -> Block:
        self._require()
        return Block(seqno=seqno, root_hash=bytes(32), file_hash=bytes(32), time_s=START_S + seqno)

    async def transactions(self, address: Address, count: int) -> list[TransactionSummary]:
        """Newest first; each settlement is followed by one that came too late and was refused."""
        self._require()
        found = []
        for settlement in self.settled:
            epoch = settlement.payload.epoch
            taken = TransactionSummary(
                hash=bytes([epoch]) * 32,
                lt=2 * epoch,
                now_s=end_s(epoch) + SETTLE_AFTER_S,
                exit_code=0,
                action_code=0,
                in_op=Op.POOL_SUBMIT_CERTIFICATE,
                source=participant(epoch % 4).address,
                aborted=False,
            )
            if taken.now_s <= self.now_s:
                found += [taken, replace(taken, hash=bytes([99]) * 32, lt=taken.lt + 1, aborted=True)]
        return found[::-1][:count]

    def _require(self) -> None:
        if self.is_away:
            raise ChainUnavailableError("the chain is away")


def seats(count: int = 2) -> list[Seat]:
    return [
        Seat(index=i, directory=Path(), node_key=key(i), wallet_key=key(i), p2p_port=0, web_port=1000 + i)
        for i in range(count)
    ]


@dataclass
class Agents:
    """The agents' listeners: all hold the same checkpoints and statuses. Those in `down` do not answer."""

    checkpoints: dict[str, bytes] = field(default_factory=dict)
    """By payload hash (hex)."""
    statuses: dict[int, object] = field(default_factory=dict)
    """By port."""
    down: set[int] = field(default_factory=set)

    def adopt(self, *settled: Settlement) -> None:
        self.checkpoints |= {each.payload_hash.hex(): encode_checkpoint(each) for each in settled}

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        port = request.url.port
        if port in self.down:
            raise httpx.ConnectError("refused", request=request)
        if request.url.path == "/-/status":
            return httpx.Response(200, json=self.statuses.get(port or 0))
        data = self.checkpoints.get(request.url.params["payload_hash"])
        return httpx.Response(404) if data is None else httpx.Response(200, content=data)
