"""Submitting, against a chain in memory: what is sent, with how much, and what is said of what became of it."""

from __future__ import annotations

import logging
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import contract_states
import pytest
import trio
from chain_in_memory import POOL_ADDRESS, World, op_of, opened, rewards_state
from pool_fixture import EPOCH_S, START_S, operator_set, participant, policy

from agent.metrics.registry import Metrics
from agent.submitting import VALUE_STEPS_MAX, Submitting
from contracts import fees
from contracts.errors import ChainUnavailableError
from contracts.model import OPEN_EPOCHS_MAX, ZERO_HASH, PoolStatus, SettlePayload, Signature
from contracts.opcodes import Op, Refusal
from contracts.wallet import FEES_RESERVE_NANOTON
from gossip.epoch_events import Finalize, Submit
from gossip.settlement import Settlement


@pytest.fixture
def world() -> World:
    return World(participants={0: tuple(participant(i) for i in range(4))})


def submitting_of(world: World) -> Submitting:
    return Submitting(world, world, world, Metrics(version="0", process=False))


def outcomes(submitting: Submitting, action: str, outcome: str) -> float | None:
    """How often this came of it, as the metrics have it."""
    labels = {"action": action, "outcome": outcome}
    return submitting._metrics.registry.get_sample_value("gpupool_chain_actions_total", labels)


async def test_finalize_is_sent_once_it_is_due_and_not_when_another_did_it(world: World) -> None:
    submitting = submitting_of(world)
    assert await submitting.finalize(1) == "done already"
    world.now_s = START_S + EPOCH_S
    assert await submitting.finalize(1) == "sent"
    assert [(m.dest, m.value_nanoton, op_of(m)) for m in world.sent] == [
        (contract_states.REWARDS, fees.FINALIZE_NANOTON, Op.DISTRIBUTION_FINALIZE_EPOCH)
    ]
    world.state_now = rewards_state(current_epoch=2, current_end_s=START_S + 2 * EPOCH_S)
    assert await submitting.finalize(1) == "done already"
    assert len(world.sent) == 1


def submission(turn: int = 0) -> Submit:
    payload = SettlePayload(
        epoch=1,
        prev=ZERO_HASH,
        totals_root=ZERO_HASH,
        count=0,
        total_score=0,
        total_earned_nanoton=0,
        tasks=0,
        tokens=0,
        policy_hash=policy().hash,
        cut_root=ZERO_HASH,
    )
    return Submit(
        settlement=Settlement(payload=payload, leaves=(), readings={}),
        set_id=1,
        signatures=tuple(Signature(index=i, signature=bytes(64)) for i in range(3)),
        turn=turn,
    )


async def test_a_certificate_goes_to_the_pool_with_enough_value(world: World) -> None:
    assert await submitting_of(world).submit(submission()) == "settled"
    assert [(m.dest, m.value_nanoton, op_of(m)) for m in world.sent] == [
        (POOL_ADDRESS, fees.submit_nanoton(3), Op.POOL_SUBMIT_CERTIFICATE)
    ]


async def test_a_settled_epoch_is_not_submitted_again(world: World) -> None:
    world.state_now = rewards_state(landed=replace(world.state_now.landed, epoch=1))
    assert await submitting_of(world).submit(submission()) == "settled already"
    assert world.sent == []


@pytest.mark.parametrize("pause", [{"status": PoolStatus.PAUSED}, {"paused_until_s": START_S + 1}])
async def test_nothing_is_submitted_to_a_paused_pool(world: World, pause: dict[str, Any]) -> None:
    world.pool_now = replace(world.pool_now, **pause)
    assert await submitting_of(world).submit(submission()) == "pool paused"
    assert world.sent == []


async def test_a_certificate_of_a_set_that_the_pool_forgot_is_not_submitted(world: World) -> None:
    assert await submitting_of(world).submit(replace(submission(), set_id=9)) == "set gone"
    assert world.sent == []


async def test_nothing_is_finalized_while_too_many_epochs_wait(world: World) -> None:
    world.now_s = START_S + EPOCH_S
    world.state_now = rewards_state(open_epochs=tuple(opened(i, START_S) for i in range(OPEN_EPOCHS_MAX)))
    assert await submitting_of(world).finalize(1) == "too many open epochs"
    assert world.sent == []


async def test_a_failed_transfer_is_counted_and_left_to_the_next_turn(world: World) -> None:
    submitting = submitting_of(world)
    world.refuses = ChainUnavailableError("down")
    world.now_s = START_S + EPOCH_S

    async def send() -> str:
        return await submitting.finalize(1)

    await submitting._attempt("finalize", 1, send)
    assert outcomes(submitting, "finalize", "failed") == 1
    world.refuses = None
    await submitting._attempt("finalize", 1, send)
    assert outcomes(submitting, "finalize", "sent") == 1


async def test_a_certificate_carries_as_few_signatures_as_make_a_quorum(world: World) -> None:
    world.pool_now = replace(world.pool_now, operator_set=operator_set(3, weights=(3, 5, 1)))
    await submitting_of(world).submit(submission())
    assert [m.value_nanoton for m in world.sent] == [fees.submit_nanoton(2)]


async def test_every_turn_that_did_not_settle_lets_the_next_bring_more_up_to_a_bound(world: World) -> None:
    submitting, least = submitting_of(world), fees.submit_nanoton(3)
    for turn in (0, 1, 2, VALUE_STEPS_MAX, 1000):
        await submitting.submit(submission(turn))
    assert [m.value_nanoton for m in world.sent] == [least, least * 3 // 2, least * 2, least * 4, least * 4]


async def test_a_wallet_that_cannot_pay_more_brings_what_is_asked_at_least(world: World) -> None:
    world.balance_nanoton = fees.submit_nanoton(3) + FEES_RESERVE_NANOTON
    await submitting_of(world).submit(submission(turn=3))
    assert [m.value_nanoton for m in world.sent] == [fees.submit_nanoton(3)]


async def test_what_nobody_took_was_sent_and_no_more(world: World, autojump_clock: trio.testing.MockClock) -> None:
    world.is_lost = True
    assert await submitting_of(world).submit(submission()) == "sent"


async def test_an_epoch_that_another_settled_meanwhile_is_settled(world: World) -> None:
    world.exit_code = Refusal.ALREADY_SETTLED
    assert await submitting_of(world).submit(submission()) == "settled already"


@pytest.mark.parametrize(
    ("exit_code", "said"),
    [
        (int(Refusal.EPOCH_OUT_OF_ORDER), "the pool refused: epoch_out_of_order"),
        (13, "the pool refused: out_of_gas"),
        (None, "the pool did not run: the message brought too little for its gas"),
    ],
)
async def test_a_refusal_is_said_by_its_name_and_left_to_the_next_turn(
    world: World, exit_code: int | None, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    submitting = submitting_of(world)
    world.exit_code = exit_code
    send, receive = trio.open_memory_channel[Submit | Finalize](2)
    send.send_nowait(submission())
    send.send_nowait(Finalize(epoch=9))
    send.close()
    await submitting.perform(SimpleNamespace(chain_actions=receive))
    refused, done = caplog.records
    assert said in refused.getMessage()
    assert refused.levelname == "WARNING"
    assert done.getMessage() == "finalize epoch 9: done already", "the next action is performed"
    assert outcomes(submitting, "submit", "refused") == 1
