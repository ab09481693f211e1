"""What a full registry weighs, what its storage costs, and what an operation burns in it.

The prices are those of the configuration that the emulator runs with: parameter 18 (storage), 400 nanoTON per gas.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pytoniq_core import Builder, Cell

from contracts import fees, layout, proof
from contracts.certificate import prove_possession
from contracts.commands import CancelSlash, EntryCommand, Remove, SetReputation, Slash, SlashReason, Suspend, Target
from contracts.devchain.accounts import AppliedTransaction
from contracts.devchain.emulator import default_config
from contracts.devchain.network import DEVNET_GLOBAL_ID
from contracts.layout import dictionary
from contracts.layout.storage import REGISTRY
from contracts.model import DAY_S, EPOCH_ROOTS_MAX, NANO, Address, Lifetime, Participant, RegistryState, StakeRules
from contracts.opcodes import Op, Refusal
from contracts.signing import SigningKey
from tests.contracts.emulation import new_ledger
from tests.contracts.pool_scene import ANYONE, STAKE, START_S, account, leaf

SIZES = [10, 1000, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.long])]
ACCOUNT_CELLS_MAX = 65_536
"""Parameter 43 of the configuration, whose default this is."""
STORAGE_PRICES = 18
GAS_NANOTON = 400
FIVE_YEARS_S = 5 * 365 * DAY_S
RENT = NANO // 20
POOL, REWARDS = account("pool"), account("rewards")
FEES = (Path(layout.__file__).parent.parent / "src" / "fees.tolk").read_text()
BOUND = {name: int(gas) for name, gas in re.findall(r"const (GAS_\w+) = (\d+)", FEES)}
NEXT_KEY = SigningKey(bytes(range(32)))
TELL_GAS = 8_000
"""Room in the bounds for what the pool does with the counters."""
TREE = proof.totals_tree([leaf(account(f"owner {i}"), NANO) for i in range(3)])


def entry(index: int) -> Participant:
    """Every field as large as it gets."""
    return Participant(
        address=account(f"owner {index}"),
        node_key=hashlib.sha256(b"key %d" % index).digest(),
        stake_nanoton=STAKE + index,
        joined_s=START_S - index,
        heartbeat_s=START_S,
        worker=account(f"worker {index}"),
        gpu_spec_hash=hashlib.sha256(b"spec %d" % index).digest(),
        gpu_count=8,
        lifetime=Lifetime(score=2**100 + index, uptime_s=index, tasks=1, tokens=2**40, epochs=9, last_epoch=9),
    )


@cache
def registry_of(count: int) -> Cell:
    entries = sorted((entry(i) for i in range(count)), key=lambda p: p.address.account)
    state = RegistryState(
        pool=POOL,
        rewards=REWARDS,
        rules=StakeRules(),
        paused_until_s=0,
        count=count,
        active_count=count,
        total_stake_nanoton=sum(p.stake_nanoton for p in entries),
        total_pending_nanoton=0,
        slashed_nanoton=0,
        counters_seqno=0,
        roots=dict.fromkeys(range(10, 10 + EPOCH_ROOTS_MAX), TREE.root_hash),
        participants=tuple(entries),
    )
    return REGISTRY.cell(state)


def measure(*roots: Cell) -> tuple[int, int]:
    """(cells, bits), each distinct cell once, as storage is charged."""
    seen: dict[bytes, int] = {}
    pending = list(roots)
    while pending:
        cell = pending.pop()
        if cell.hash not in seen:
            seen[cell.hash] = len(cell.bits)
            pending += cell.refs
    return len(seen), sum(seen.values())


def storage_prices() -> tuple[int, int]:
    """(bit, cell) of basechain, per 2**16 seconds, as they are now."""
    configuration = dictionary.entries(default_config(), 32, entries_max=1000, name="configuration")
    prices = next(value.ref() for number, value in configuration if number == STORAGE_PRICES)
    *_, (_, newest) = dictionary.entries(prices, 32, entries_max=64, name="storage prices")
    newest.tag(0xCC, 8)
    newest.uint(32)
    return newest.uint(64), newest.uint(64)


def rent(seconds: int, *roots: Cell) -> int:
    """nanoTON for the storage of these cells."""
    cells, bits = measure(*roots)
    bit_price, cell_price = storage_prices()
    return (bits * bit_price + cells * cell_price) * seconds >> 16


CODE = layout.code("participant_registry")


def test_an_empty_registry_has_paid_five_years_of_rent() -> None:
    assert 0 < rent(FIVE_YEARS_S, registry_of(0), CODE) < NANO // 2


@pytest.mark.slow
@pytest.mark.long
def test_trap_15_a_full_registry_fits_an_account() -> None:
    cells, _ = measure(registry_of(10_000), CODE)
    assert cells < ACCOUNT_CELLS_MAX * 95 // 100


@pytest.mark.parametrize("count", SIZES)
def test_trap_15_participants_have_paid_five_years_of_rent(count: int) -> None:
    full = Full(count)
    full.ledger.advance(START_S + FIVE_YEARS_S)
    taken = full.send(ANYONE, layout.top_up_body())
    charged = taken.fees_nanoton - taken.gas_used * GAS_NANOTON
    expected = rent(FIVE_YEARS_S, registry_of(count), CODE)
    assert expected <= charged <= expected + NANO // 500
    assert charged < count * RENT + NANO // 2


# ---- gas ----


class Full:
    """A registry of `count` participants that no pool stands behind."""

    def __init__(self, count: int) -> None:
        self.ledger = new_ledger(START_S)
        init = layout.state_init(layout.code("participant_registry"), registry_of(count))
        self.registry = layout.address_of(init)
        value = count * (STAKE + count + RENT) + NANO
        assert self.ledger.send_internal(ANYONE, self.registry, value, layout.top_up_body(), state_init=init)[0].success
        self.owner = account("owner 1")
        self.seqno = 0

    def send(self, source: Address, body: Cell, value: int = fees.ENTRY_NANOTON) -> AppliedTransaction:
        return self.ledger.send_internal(source, self.registry, value, body)[0]

    def relay(self, kind: type[EntryCommand], **values: Any) -> AppliedTransaction:
        self.seqno += 1
        target = Target(participant=self.owner, joined_s=entry(1).joined_s, seqno=self.seqno)
        command = kind(target=target, **values)
        payload = layout.command_cell(command)
        body = layout.body_cell(
            Op.POOL_RELAY_CERTIFICATE, submitter=ANYONE, attached=NANO, set_id=1, kind=command.kind, payload=payload
        )
        return self.send(POOL, body)

    def rotate(self, key: SigningKey) -> AppliedTransaction:
        proven = prove_possession(key, global_id=DEVNET_GLOBAL_ID, pool=POOL, owner=self.owner)
        return self.send(self.owner, layout.rotate_node_key_body(key.public, proven))

    def add(self, participant: Participant) -> AppliedTransaction:
        body = layout.body_cell(
            Op.REGISTRY_ADD_PARTICIPANT,
            owner=participant.address,
            stake=STAKE,
            max_participants=10_000,
            node_key=participant.node_key,
            worker=participant.worker,
            gpu_spec_hash=participant.gpu_spec_hash,
            gpu_count=participant.gpu_count,
        )
        return self.send(POOL, body, STAKE + fees.REGISTRATION_NANOTON)

    def entry_operations(self) -> Iterator[AppliedTransaction]:
        """Everything that changes one entry, and does not end it."""
        yield self.send(self.owner, layout.heartbeat_body())
        yield self.send(self.owner, layout.update_worker_body(account("next worker")))
        yield self.send(self.owner, layout.increase_stake_body(2 * STAKE), 3 * STAKE)
        yield self.send(self.owner, layout.request_withdrawal_body(STAKE))
        yield self.send(self.owner, layout.cancel_withdrawal_body())
        slash = {"amount_nanoton": 5 * STAKE // 2, "reason": SlashReason.FORK, "evidence_hash": bytes(range(32))}
        yield self.relay(Slash, **slash)
        yield self.relay(CancelSlash)
        yield self.relay(SetReputation, reputation=7)
        yield self.relay(Suspend, suspended=True)
        yield self.relay(Suspend, suspended=False)
        yield self.relay(Slash, **slash)
        yield self.relay(Remove)


@pytest.mark.parametrize("count", SIZES)
def test_gas_stays_below_what_a_message_must_bring(count: int) -> None:
    full = Full(count)
    for transaction in full.entry_operations():
        assert transaction.exit_code == 0
        assert transaction.gas_used + TELL_GAS <= BOUND["GAS_ENTRY"]
    rotated = full.rotate(NEXT_KEY)
    assert rotated.exit_code == 0
    assert rotated.gas_used <= BOUND["GAS_ROTATE"]
    for source, epoch in ((ANYONE, 10), (full.owner, 40)):
        counted = full.send(source, layout.update_contribution_body(full.owner, epoch, TREE.prove(full.owner)))
        assert counted.exit_code == 0
        assert counted.gas_used <= BOUND["GAS_CONTRIBUTION"]
    full.ledger.advance(START_S + 7 * DAY_S)
    for body in (layout.complete_withdrawal_body(full.owner), layout.sweep_slashed_body(full.owner)):
        ended = full.send(ANYONE, body)
        assert ended.exit_code == 0
        assert ended.gas_used + max(TELL_GAS, BOUND["GAS_RECEIVE_SLASHED"]) <= BOUND["GAS_END_ENTRY"]
    added = full.add(entry(1))
    assert added.exit_code == 0
    assert added.gas_used + TELL_GAS <= BOUND["GAS_ADD_PARTICIPANT"]
    body = layout.body_cell(Op.REGISTRY_SET_EPOCH_ROOT, submitter=ANYONE, epoch=99, totals_root=bytes(range(32)))
    assert full.send(POOL, body, BOUND["GAS_EPOCH_ROOT"] * GAS_NANOTON).exit_code == 0
    body = layout.body_cell(
        Op.REGISTRY_CONFIGURE,
        rewards=REWARDS,
        paused_until=0,
        rules=StakeRules(heartbeat_timeout_s=9),
        excess_to=ANYONE,
    )
    assert full.send(POOL, body).gas_used <= BOUND["GAS_CONFIGURE"]


@pytest.mark.slow
@pytest.mark.long
def test_a_registry_takes_10_000_participants_whatever_the_parameters_say() -> None:
    full = Full(10_000)
    refused = full.add(replace(entry(1), address=account("one more"), node_key=bytes(31) + b"\1"))
    assert (refused.exit_code, refused.bounce) == (Refusal.POOL_FULL, True)


@pytest.mark.slow
@pytest.mark.long
def test_a_page_of_a_full_registry_can_be_asked_for() -> None:
    full = Full(10_000)
    exit_code, (page,) = full.ledger.get_method(full.registry, "get_participants_page", [2**255])
    assert (exit_code, len(page)) == (0, 100)


def test_the_measure_counts_a_cell_once() -> None:
    shared = Builder().store_uint(1, 8).end_cell()
    assert measure(Builder().store_ref(shared).store_ref(shared).end_cell(), shared) == (2, 8)
