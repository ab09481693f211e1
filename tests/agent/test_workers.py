"""Reading worker contracts for an observation: who counts, at which block, what is tried again, what is left out."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import trio
from epochs import policy_receipts
from pool_fixture import frame, key, operator_set, participant
from trio.testing import MockClock, wait_all_tasks_blocked

import agent.workers
from agent.workers import AT_ONCE_MAX, BUDGET_S, RETRY_S, TOKENS_MAX, TRIES_MAX, Workers
from contracts.chain_servers import BACKOFF_S_MIN
from contracts.chain_values import Block
from contracts.cocoon import UnacceptableWorkerError, WorkerContract, WorkerState
from contracts.errors import (
    ChainConflictError,
    ChainUnavailableError,
    ContractAbsentError,
    ContractsError,
    InvalidCellError,
    UnreadableStateError,
)
from contracts.model import Address, Participant
from gossip.tally import EpochFrame

CODE, PROXY = b"\x01" * 32, b"\x02" * 32
FINALIZED_S = 1_800_000_123
OPERATOR = key(0).public


class Contracts:
    """A chain with worker contracts by address; some cannot be read, a `hung` one never answers."""

    def __init__(self) -> None:
        self.by_address: dict[Address, WorkerContract] = {}
        self.failing: dict[Address, ContractsError] = {}
        self.hung: set[Address] = set()
        self.forgot: ContractsError | None = None
        self.reads: list[Address] = []
        self.at_once = self.at_once_most = 0

    def add(self, who: Participant, tokens: int, **changes: Any) -> Participant:
        address = Address(0, bytes(31) + bytes([len(self.by_address)]))
        contract = WorkerContract(
            address=address,
            owner=who.address,
            proxy=Address(0, bytes(32)),
            proxy_public_key=PROXY,
            state=WorkerState.OPEN,
            tokens=tokens,
            code_hash=CODE,
            origin=address,
        )
        self.by_address[address] = replace(contract, **changes)
        return replace(who, worker=address)

    async def block_at(self, time_s: int) -> Block:
        await trio.lowlevel.checkpoint()
        if self.forgot is not None:
            raise self.forgot
        return Block(seqno=1, root_hash=bytes(32), file_hash=bytes(32), time_s=time_s)

    async def read(self, _chain: object, address: Address, block: Block) -> WorkerContract:
        assert block.time_s == FINALIZED_S
        self.reads.append(address)
        self.at_once += 1
        self.at_once_most = max(self.at_once_most, self.at_once)
        await trio.sleep(math.inf if address in self.hung else 1)
        self.at_once -= 1
        if address in self.failing:
            raise self.failing[address]
        if address not in self.by_address:
            raise ContractAbsentError("nothing there")
        return self.by_address[address]


@pytest.fixture
def contracts(monkeypatch: pytest.MonkeyPatch) -> Contracts:
    contracts = Contracts()
    monkeypatch.setattr(agent.workers, "read_worker", contracts.read)
    return contracts


def demanding(participants: list[Participant], ceiling: str = "worker-contract", epoch: int = 1) -> EpochFrame:
    base = frame(len(participants), epoch)
    receipts = policy_receipts(base.policy, ceiling=ceiling, worker_codes=(CODE.hex(),), worker_proxies=(PROXY.hex(),))
    return replace(base, policy=replace(base.policy, receipts=receipts), participants=tuple(participants))


def workers_of(contracts: Contracts, node_key: bytes = OPERATOR) -> Workers:
    return Workers(contracts, node_key)  # type: ignore[arg-type]


async def readings(workers: Workers, *frames: EpochFrame) -> list[Mapping[bytes, int]]:
    """What is read for each of these epochs, one after another, asked for every second."""
    found: list[Mapping[bytes, int]] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(workers.run)
        for each in frames:
            while (known := workers.of(each, FINALIZED_S)) is None:  # noqa: ASYNC110 -- as the chain's loop asks
                await trio.sleep(1)
            found.append(dict(known))
            await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return found


async def test_what_counts_is_read_once_per_epoch(contracts: Contracts, autojump_clock: MockClock) -> None:
    people = [contracts.add(participant(i), 100 * i) for i in range(3)]
    expected = {key(i).public: 100 * i for i in range(3)}
    first, second = demanding(people), demanding(people, epoch=2)
    began_s = trio.current_time()
    assert await readings(workers_of(contracts), first, first, second) == [expected] * 3
    assert len(contracts.reads) == 6
    assert trio.current_time() < began_s + RETRY_S, "an epoch waits no longer than it takes"


async def test_nothing_is_read_unless_the_policy_asks_and_this_node_settles_the_epoch(
    contracts: Contracts, autojump_clock: MockClock
) -> None:
    people = [contracts.add(participant(0), 100)]
    assert await readings(workers_of(contracts), demanding(people, "none")) == [{}]
    assert await readings(workers_of(contracts, key(7).public), demanding(people)) == [{}]
    assert contracts.reads == []


async def test_an_operator_of_the_set_that_takes_over_reads_then(
    contracts: Contracts, autojump_clock: MockClock
) -> None:
    before = demanding([contracts.add(participant(0), 100)])
    after = replace(before, operators=operator_set(2, set_id=2, first=6))
    assert await readings(workers_of(contracts, key(7).public), before, after) == [{}, {OPERATOR: 100}]


@pytest.mark.parametrize(
    "changes",
    [
        {"code_hash": bytes(32)},
        {"origin": Address(0, b"\x09" * 32)},
        {"proxy_public_key": bytes(32)},
        {"owner": Address(0, b"\x09" * 32)},
    ],
)
async def test_a_contract_that_does_not_count_is_left_out(
    contracts: Contracts, autojump_clock: MockClock, changes: dict[str, Any]
) -> None:
    people = [contracts.add(participant(0), 10**12, **changes), contracts.add(participant(1), 5), participant(2)]
    assert await readings(workers_of(contracts), demanding(people)) == [{key(1).public: 5}]


async def test_where_nothing_stands_yet_nothing_was_paid(contracts: Contracts, autojump_clock: MockClock) -> None:
    people = [replace(participant(0), worker=Address(0, b"\x0f" * 32))]
    assert await readings(workers_of(contracts), demanding(people)) == [{OPERATOR: 0}]


@pytest.mark.parametrize(
    ("failure", "reads"),
    [
        (ChainUnavailableError("away"), TRIES_MAX),
        (ChainConflictError("lies"), 1),
        (UnreadableStateError("too large"), 1),
        (UnacceptableWorkerError("of another workchain"), 1),
        (InvalidCellError("a wallet"), 1),
    ],
)
async def test_what_cannot_be_read_is_given_up_and_costs_nobody_else(
    contracts: Contracts,
    autojump_clock: MockClock,
    failure: ContractsError,
    reads: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    people = [contracts.add(participant(i), 7) for i in range(2)]
    assert people[0].worker is not None
    contracts.failing[people[0].worker] = failure
    epoch = demanding(people)
    assert await readings(workers_of(contracts), epoch, epoch, epoch) == [{key(1).public: 7}] * 3
    assert contracts.reads.count(people[0].worker) == reads
    assert caplog.text.count(str(failure)) == 1


async def test_a_contract_that_was_away_is_read_when_it_is_tried_again(
    contracts: Contracts, autojump_clock: MockClock
) -> None:
    people = [contracts.add(participant(i), 7) for i in range(2)]
    away = people[0].worker
    assert away is not None
    contracts.failing[away] = ChainUnavailableError("away")
    async with trio.open_nursery() as nursery:
        workers = workers_of(contracts)
        nursery.start_soon(workers.run)
        assert workers.of(demanding(people), FINALIZED_S) is None
        await trio.sleep(5)
        assert workers.of(demanding(people), FINALIZED_S) is None, "it is tried once more"
        contracts.failing.clear()
        await trio.sleep(BUDGET_S)
        assert workers.of(demanding(people), FINALIZED_S) == {key(0).public: 7, key(1).public: 7}
        nursery.cancel_scope.cancel()
    assert contracts.reads.count(away) == 2


async def test_contracts_that_never_answer_delay_an_epoch_by_the_budget_and_no_more(
    contracts: Contracts, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    people = [contracts.add(participant(i), 7) for i in range(40)]
    for each in people[1:]:
        assert each.worker is not None
        contracts.hung.add(each.worker)
    began_s = trio.current_time()
    (found,) = await readings(workers_of(contracts), demanding(people))
    assert found.items() <= {OPERATOR: 7}.items()
    assert BUDGET_S <= trio.current_time() - began_s <= BUDGET_S + 1
    assert contracts.at_once_most == AT_ONCE_MAX
    assert f"{40 - len(found)} worker contracts are not read" in caplog.text


async def test_a_contract_that_costs_the_connection_costs_nobody_the_reading(
    contracts: Contracts, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes longer than a server has to answer; that one is left alone then, and nobody answers for a moment."""
    people = [contracts.add(participant(i), 7) for i in range(150)]
    down_until_s = 0.0

    async def read(_chain: object, address: Address, _block: Block) -> WorkerContract:
        nonlocal down_until_s
        if address == people[0].worker:
            await trio.sleep(2)
            down_until_s = trio.current_time() + BACKOFF_S_MIN
        if trio.current_time() < down_until_s:
            raise ChainUnavailableError("no connection")
        await trio.sleep(0.2)
        return contracts.by_address[address]

    monkeypatch.setattr(agent.workers, "read_worker", read)
    (found,) = await readings(workers_of(contracts), demanding(people))
    assert found == {key(i).public: 7 for i in range(1, 150)}


async def test_the_epoch_after_one_that_was_given_up_is_read(contracts: Contracts, autojump_clock: MockClock) -> None:
    people = [contracts.add(participant(0), 7)]
    assert people[0].worker is not None
    contracts.hung.add(people[0].worker)
    workers = workers_of(contracts)
    assert await readings(workers, demanding(people)) == [{}]
    contracts.hung.clear()
    assert await readings(workers, demanding(people, epoch=2)) == [{OPERATOR: 7}]


async def test_a_block_that_was_forgotten_leaves_all_unread_and_says_so(
    contracts: Contracts, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    contracts.forgot = ChainUnavailableError("block is not in db")
    people = [contracts.add(participant(0), 7)]
    assert await readings(workers_of(contracts), demanding(people)) == [{}]
    assert contracts.reads == []
    assert "epoch 1: 1 worker contracts are not read" in caplog.text
    assert "block is not in db" in caplog.text


async def test_a_task_that_does_not_run_holds_no_epoch_up(contracts: Contracts, autojump_clock: MockClock) -> None:
    people = [contracts.add(participant(0), 7)]
    workers = workers_of(contracts)
    assert workers.of(demanding(people), FINALIZED_S) is None
    await trio.sleep(BUDGET_S)
    assert workers.of(demanding(people), FINALIZED_S) == {}


async def test_a_reading_fits_an_observation(contracts: Contracts, autojump_clock: MockClock) -> None:
    people = [contracts.add(participant(0), (1 << 64) - 1)]
    assert await readings(workers_of(contracts), demanding(people)) == [{OPERATOR: TOKENS_MAX}]
