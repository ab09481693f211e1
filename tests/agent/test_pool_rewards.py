"""Claims, pushes and contributions from the command line: proved from a settlement, paid by the contracts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from emulated_chain import key, wallet_of
from pool_town import EPOCH_S, Town, open_town

from agent.pool import rewards
from contracts import certificate, fees, proof
from contracts.devchain.network import DEVNET_GLOBAL_ID
from contracts.model import DAY_S, NANO, CertificateDomain, Leaf, SettlePayload, Signature
from contracts.wallet import OutMessage

RECEIVING_NANOTON = NANO // 1000
"""More than what a wallet's gas for receiving costs it."""
NAMES = ("ann", "bob", "cid", "dan")


def leaf(name: str, earned_nanoton: int) -> Leaf:
    return Leaf(
        participant=wallet_of(name), earned_nanoton=earned_nanoton, score=1, tokens=2, tasks=3, uptime_s=4,
        quality=5, reputation=500,
    )  # fmt: skip


LEAVES = (leaf("ann", 5 * NANO), leaf("bob", 3 * NANO), leaf("cid", NANO // 100))


@pytest.fixture
def town(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Town]:
    """A pool of four operators that settled epoch 1."""
    with open_town(tmp_path, monkeypatch, capsys) as town:
        (town.folder / "params.toml").write_text('auto_distribute = true\nmin_distribution = "1"\n')
        town.deploy("--params-file", "params.toml")
        town.register(*NAMES)
        town.hand_over()
        town.run("owner", "pay", "25")
        town.chain.advance(EPOCH_S)
        town.run("owner", "finalize")
        payload = settle(town, LEAVES)
        know(monkeypatch, payload, LEAVES)
        yield town


def settle(town: Town, leaves: tuple[Leaf, ...]) -> SettlePayload:
    """Settle the oldest open epoch with these leaves, as its operators would."""
    state = town.rewards()
    payload = SettlePayload(
        epoch=state.landed.epoch + 1, prev=state.landed.payload_hash, totals_root=proof.totals_tree(leaves).root_hash,
        count=len(leaves), total_score=len(leaves), total_earned_nanoton=sum(each.earned_nanoton for each in leaves),
        tasks=0, tokens=0, policy_hash=state.open_epochs[0].policy_hash, cut_root=bytes(32),
    )  # fmt: skip
    cell = certificate.settle_certificate(
        CertificateDomain(global_id=DEVNET_GLOBAL_ID, pool=town.pool, set_id=1), payload
    )
    operators = town.state().operator_set
    assert operators is not None
    keys = {key(f"node of {name}").public: key(f"node of {name}") for name in NAMES}
    signatures = [
        Signature(index=i, signature=keys[each.node_key].sign(cell.hash)) for i, each in enumerate(operators.operators)
    ]
    message = OutMessage(
        dest=town.pool, value_nanoton=fees.submit_nanoton(4), body=certificate.submit_body(cell, signatures)
    )
    trio.run(town.chain.wallet("ann").transfer, [message])
    assert town.rewards().landed.epoch == payload.epoch
    return payload


def know(monkeypatch: pytest.MonkeyPatch, payload: Any, leaves: tuple[Leaf, ...]) -> None:
    """Let the agent that the command asks know this settlement."""

    async def landed_settlement(*_: object) -> Any:
        return SimpleNamespace(payload=payload, leaves=leaves)

    monkeypatch.setattr(rewards, "landed_settlement", landed_settlement)
    monkeypatch.setattr(rewards, "load_config", lambda _path: None)


def test_a_claim_is_paid_once(town: Town) -> None:
    claimed = town.run("ann", "claim")
    newest = town.chain.node.ledger.account(town.state().rewards).last_hash
    assert claimed == {
        "participant": str(wallet_of("ann")),
        "paid_now_nanoton": 5 * NANO,
        "paid_nanoton": 5 * NANO,
        "earned_nanoton": 5 * NANO,
        "transaction": newest.hex(),
    }
    assert "5 TON were paid" in town.refused("ann", "claim")
    assert "it earned nothing so far" in town.refused("dan", "claim")


def test_anybody_claims_for_somebody_else(town: Town) -> None:
    before = town.balance(wallet_of("bob"))
    town.run("dan", "claim", "--participant", str(wallet_of("bob")))
    gained = town.balance(wallet_of("bob")) - before
    assert 0 <= 3 * NANO - gained < RECEIVING_NANOTON


def test_a_dry_run_of_a_claim_pays_nothing(town: Town) -> None:
    forecast = town.run("ann", "claim", "--dry-run")
    rewards_loses = next(each for each in forecast["balances"] if each["account"] == "rewards")["change_nanoton"]
    assert -5 * NANO <= rewards_loses < -4 * NANO
    (event,) = next(t for t in forecast["transactions"] if t["account"] == "rewards")["events"]
    assert (event["event"], event["values"]["amount_nanoton"]) == ("rewards_claimed", 5 * NANO)
    assert town.rewards().paid_nanoton == {}


def test_a_push_pays_who_has_enough_to_get(town: Town) -> None:
    pushed = town.run("dan", "push")
    assert pushed == {
        "participants": [str(wallet_of("ann")), str(wallet_of("bob"))],
        "amount_nanoton": 8 * NANO,
    }
    assert town.rewards().distributed_nanoton == 8 * NANO
    assert "nobody has at least 1 TON to get" in town.refused("dan", "push")


def test_a_push_pays_the_largest_first(town: Town) -> None:
    assert town.run("dan", "push", "--count", "1")["participants"] == [str(wallet_of("ann"))]
    code, _, errors = town.try_("dan", "push", "--count", "201")
    assert (code, errors) == (2, "gpupool: --count 201: expected 1 to 200\n")


def test_a_contribution_is_counted_once(town: Town) -> None:
    town.run("dan", "contribution", "1", "--participant", str(wallet_of("ann")))
    entry = next(each for each in town.registry().participants if each.address == wallet_of("ann"))
    assert entry.lifetime is not None
    assert (entry.lifetime.epochs, entry.lifetime.tokens, entry.lifetime.last_epoch) == (1, 2, 1)
    assert "counted epoch 1 already" in town.refused("ann", "contribution", "1")
    assert "holds the settlement of epoch 1" in town.refused("ann", "contribution", "2")
    assert "has no part in epoch 1" in town.refused("dan", "contribution", "1")


def test_totals_that_never_landed_prove_nothing(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    know(monkeypatch, SimpleNamespace(epoch=1), (leaf("ann", 6 * NANO),))
    assert "try again when the agent caught up" in town.refused("ann", "claim")
    assert "try again when the agent caught up" in town.refused("ann", "push")


def test_a_pool_that_leaves_it_to_claims_pushes_nothing(town: Town) -> None:
    (town.folder / "params.toml").write_text("auto_distribute = false\n")
    town.run("ann", "params", "propose", "params.toml", "--out", "params.json")
    for name in ("bob", "cid"):
        town.run(name, "certificate", "sign", "params.json", "--yes")
    town.run("cid", "certificate", "submit", "params.json")
    town.chain.advance(3 * DAY_S)
    town.run("dan", "params", "apply")
    # What was pinned when the running epoch began still counts; the next one keeps to the new parameters.
    town.run("dan", "push", "--count", "1")
    town.run("dan", "finalize")
    assert "this pool does not push" in town.refused("dan", "push")


def test_fees_go_where_the_operators_say(town: Town) -> None:
    pending = town.rewards().pending_fees_nanoton
    assert pending > NANO // 10
    assert "of fees to pay out" in town.refused("ann", "fees-to", str(wallet_of("dan")), "900")
    town.run("ann", "fees-to", str(wallet_of("dan")), "0.1", "--out", "fees.json", "--yes")
    for name in ("bob", "cid"):
        town.run(name, "certificate", "sign", "fees.json", "--yes")
    before = town.balance(wallet_of("dan"))
    town.run("cid", "certificate", "submit", "fees.json", "--yes")
    assert 0 <= NANO // 10 - (town.balance(wallet_of("dan")) - before) < RECEIVING_NANOTON
    assert town.rewards().pending_fees_nanoton == pending - NANO // 10
