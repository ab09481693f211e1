"""Gas of the rewards contract: exact figures for small states, bounds for large ones, all of it brought by the value.

The figures are exact: a change of the contract that moves one shows here. The bounds of
`contracts/src/fees.tolk`, read from the source, must lie above the largest of them.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pytoniq_core import Builder

from contracts import fees, layout, proof
from contracts.commands import Command, FeesTo, OwnerMessage
from contracts.model import NANO, Address, CertificateKind, PinnedTerms, RewardsState, SettlePayload
from contracts.opcodes import Op, Refusal
from tests.contracts.lone_rewards import PINNED, LoneRewards, landed, made_state, open_epochs
from tests.contracts.pool_scene import ANYONE, DURATION_S, OWNER, PARTICIPANTS, POLICY, START_S, Scene, account, leaf

FEES = (Path(layout.__file__).parent.parent / "src" / "fees.tolk").read_text()
BOUND = {name: int(gas) for name, gas in re.findall(r"const (GAS_\w+) = (\d+)", FEES)}
GAS_NANOTON = 400

PAYMENTS = {
    "receive_payment": layout.receive_payment_body(),
    "empty": Builder().end_cell(),
    "comment": Builder().store_uint(0, 32).store_bytes(b"for the pool, with thanks for all the work").end_cell(),
    "payout": layout.body_cell(Op.PAYOUT, query_id=9),
    "cocoon_excesses": layout.body_cell(Op.COCOON_EXCESSES, query_id=9),
}
PAYMENT_GAS = {
    "receive_payment": 3023,
    "empty": 2316,
    "comment": 2469,
    "payout": 3098,
    "cocoon_excesses": 3255,
}
SMALL_GAS = {
    "finalize": 12509,
    "finalize with new terms": 12123,
    "settle": 14981,
    "claim": 11298,
    "claim for another": 13636,
    "push of 8": 53379,
    "fees_to": 11237,
    "owner_message": 9552,
    "receive_slashed": 8143,
    "update_terms": 10655,
}
# (leaves, all of them paid before) -> the most that one message can push, in the order of their accounts
PUSH_MOST = {
    (200, False): 165,
    (200, True): 119,
    (1000, False): 167,
    (1000, True): 104,
    (10_000, False): 161,
    (10_000, True): 85,
}


@pytest.mark.parametrize("kind", PAYMENTS)
def test_a_payment_pays_for_itself(scene: Scene, kind: str) -> None:
    burnt = scene.send(ANYONE, scene.rewards, NANO, PAYMENTS[kind]).at(scene.rewards).gas_used
    assert burnt == PAYMENT_GAS[kind]
    assert burnt <= BOUND["GAS_CREDIT"]
    assert BOUND["GAS_CREDIT"] * GAS_NANOTON == fees.PAYMENT_NANOTON


def test_gas_of_each_operation(ready: Scene) -> None:
    gas = {}
    ready.pay(100 * NANO)
    ready.ledger.advance(START_S + DURATION_S)
    gas["finalize with new terms"] = ready.finalize().at(ready.rewards).gas_used
    ready.pay(100 * NANO)
    ready.advance(DURATION_S)
    gas["finalize"] = ready.finalize().at(ready.rewards).gas_used
    pot = ready.state().open_epochs[0].pot_nanoton
    leaves = [leaf(participant, pot // 10) for participant in PARTICIPANTS]
    gas["settle"] = ready.settle(leaves).at(ready.rewards).gas_used
    tree = proof.totals_tree(leaves)
    gas["claim"] = ready.claim(PARTICIPANTS[0], tree).at(ready.rewards).gas_used
    gas["claim for another"] = ready.claim(PARTICIPANTS[1], tree, source=ANYONE).at(ready.rewards).gas_used
    gas["push of 8"] = ready.push(PARTICIPANTS[2:], tree).at(ready.rewards).gas_used
    fee = FeesTo(gov_seqno=ready.gov_seqno, recipient=OWNER, amount_nanoton=NANO)
    gas["fees_to"] = ready.command(fee).at(ready.rewards).gas_used
    said = OwnerMessage(gov_seqno=ready.gov_seqno, dest=ANYONE, value_nanoton=NANO, body=Builder().end_cell())
    gas["owner_message"] = ready.command(said).at(ready.rewards).gas_used
    slashed = layout.body_cell(Op.DISTRIBUTION_RECEIVE_SLASHED, excess_to=ANYONE, amount=NANO)
    gas["receive_slashed"] = ready.send(ready.registry, ready.rewards, 2 * NANO, slashed).at(ready.rewards).gas_used
    terms = layout.body_cell(Op.DISTRIBUTION_UPDATE_TERMS, next=PINNED, excess_to=ANYONE)
    gas["update_terms"] = ready.send(ready.pool, ready.rewards, NANO, terms).at(ready.rewards).gas_used
    assert gas == SMALL_GAS
    for operation in ("fees_to", "owner_message", "receive_slashed"):
        assert gas[operation] <= BOUND[f"GAS_{operation.upper()}"]


def many(count: int) -> list[Address]:
    """Participants in the order of their accounts: neighbours of one proof."""
    return sorted((account(f"claimer {i}") for i in range(count)), key=lambda participant: participant.account)


def full_state(everyone: list[Address], paid: list[Address], **over: object) -> tuple[proof.TotalsTree, RewardsState]:
    """All earned 5 TON, these were paid one of it; 63 epochs wait for their settlement."""
    leaves = [leaf(participant, 5 * NANO) for participant in everyone]
    fields = {"paid_nanoton": {p.account: NANO for p in paid}, "open_epochs": open_epochs(63)} | over
    return proof.totals_tree(leaves), made_state(landed(leaves), **fields)


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.long])])
def test_gas_of_a_claim_among_many(count: int) -> None:
    everyone = many(count)
    tree, state = full_state(everyone, everyone[::2])
    lone = LoneRewards(state)
    for participant in (*everyone[:2], *everyone[-2:]):
        body = layout.claim_body(participant, tree.prove(participant))
        paid, again = (lone.send(source, fees.CLAIM_NANOTON, body) for source in (ANYONE, participant))
        assert (paid.exit_code, again.exit_code) == (0, Refusal.NOTHING_TO_PAY)
        assert max(paid.gas_used, again.gas_used) <= BOUND["GAS_CLAIM"]


@pytest.mark.parametrize(
    ("count", "paid"),
    [pytest.param(*at, marks=[pytest.mark.slow, pytest.mark.long]) if at[0] == 10_000 else at for at in PUSH_MOST],
)
def test_gas_of_a_push_among_many(count: int, paid: bool) -> None:
    """As many as fit the gas limit are paid; of one more the value comes back and nothing is paid."""
    everyone = many(count)
    most = PUSH_MOST[count, paid]
    tree, state = full_state(everyone, everyone if paid else [])
    lone = LoneRewards(state)

    def push(size: int, value: int) -> tuple[int | None, int]:
        body = layout.push_body(everyone[:size], tree.prove_many(everyone[:size]))
        pushed = lone.send(ANYONE, value, body)
        return pushed.exit_code, pushed.gas_used

    exit_code, gas = push(most + 1, fees.push_nanoton(most + 1))
    assert (exit_code, gas) == (-14, BOUND["GAS_LIMIT"])
    assert lone.state() == state
    exit_code, gas = push(most, fees.push_nanoton(most))
    assert exit_code == 0
    assert gas <= BOUND["GAS_PUSH"] + BOUND["GAS_PER_PAYOUT"] * most
    assert len(lone.state().paid_nanoton) == (count if paid else most)


def test_a_push_needs_no_more_than_the_gas_limit_can_burn() -> None:
    everyone = many(200)
    tree, state = full_state(everyone, everyone)
    body = layout.push_body(everyone, tree.prove_many(everyone))
    lone = LoneRewards(state)
    enough = BOUND["GAS_LIMIT"] * GAS_NANOTON + 200 * (400_000 + fees.PAYEE_RENT_NANOTON) + NANO // 50
    assert lone.send(ANYONE, enough - 1, body).exit_code == Refusal.INSUFFICIENT_VALUE
    assert lone.send(ANYONE, enough, body).exit_code == -14
    assert enough <= fees.push_nanoton(200)


def settle_payload(state: RewardsState) -> SettlePayload:
    return SettlePayload(
        epoch=state.landed.epoch + 1,
        prev=state.landed.payload_hash,
        totals_root=bytes(range(32)),
        count=1,
        total_score=1,
        total_earned_nanoton=state.landed.total_earned_nanoton + NANO,
        tasks=2**64 - 1,
        tokens=2**64 - 1,
        policy_hash=POLICY,
        cut_root=bytes(32),
    )


def test_gas_of_epochs_with_64_open() -> None:
    everyone = many(10)
    changed = PinnedTerms(set_id=2, terms=PINNED.terms)
    _, state = full_state(everyone, everyone, next=changed, pending_fees_nanoton=NANO)
    lone = LoneRewards(state)
    lone.ledger.advance(START_S + DURATION_S)
    finalized = lone.send(ANYONE, fees.FINALIZE_NANOTON, layout.finalize_body())
    assert finalized.exit_code == 0
    assert finalized.gas_used <= BOUND["GAS_FINALIZE"]
    assert len(lone.state().open_epochs) == 64
    settled = lone.relay(layout.command_cell(settle_payload(state)), CertificateKind.SETTLE)
    assert settled.exit_code == 0
    assert settled.gas_used <= BOUND["GAS_SETTLE"]


BODY = Builder().store_ref(Builder().store_bytes(bytes(100)).end_cell()).end_cell()


@pytest.mark.parametrize(
    ("command", "gas", "beside"),
    [
        (None, ("GAS_SETTLE", "GAS_SETTLED"), NANO // 200),
        (FeesTo(gov_seqno=1, recipient=Address(-1, bytes(32)), amount_nanoton=NANO), ("GAS_FEES_TO",), NANO // 50),
        (
            OwnerMessage(gov_seqno=1, dest=ANYONE, value_nanoton=NANO, body=BODY),
            ("GAS_OWNER_MESSAGE",),
            NANO + NANO // 50,
        ),
    ],
    ids=["settle", "fees_to", "owner_message"],
)
def test_the_least_value_that_is_taken_is_enough(command: Command | None, gas: tuple[str, ...], beside: int) -> None:
    """Trap 14: nothing that passes the compute phase fails in the action phase."""
    everyone = many(10)
    _, state = full_state(everyone, everyone, pending_fees_nanoton=NANO)
    lone = LoneRewards(state)
    command = command or settle_payload(state)
    least = sum(BOUND[name] for name in gas) * GAS_NANOTON + beside
    refused = lone.relay(layout.command_cell(command), command.kind, least - 1)
    assert refused.exit_code == Refusal.INSUFFICIENT_VALUE
    taken = lone.relay(layout.command_cell(command), command.kind, least)
    assert (taken.exit_code, taken.action_code) == (0, 0)
    assert lone.balance >= lone.state().liabilities_nanoton
