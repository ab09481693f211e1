"""A script of messages to one pool with what each must do, for another implementation to replay.

    python -m tests.contracts.replay > scenario.json
    node contracts/sandbox/replay.mjs scenario.json

Every step holds the message as cells, the time, each transaction's account, exit code and gas, and of every
contract the hash of its data and its balance afterwards. Steps that this package computes something for
(totals, certificate, proofs) name the plain values beside it, so that the other side computes it by itself.
"""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pytoniq_core import Cell

from contracts import certificate, commands, layout, proof
from contracts.devchain.boc import to_boc
from contracts.devchain.network import devnet_config
from contracts.model import DAY_S, NANO, Address, Leaf, PoolMetadata, UpgradeTarget
from contracts.opcodes import Refusal
from tests.contracts.pool_scene import (
    ANYONE,
    GUARDIAN,
    PARAMS,
    PARTICIPANTS,
    POLICY,
    STAKE,
    TERMS,
    Scene,
    Sent,
    leaf,
    node_key,
)

REFUSALS = [
    Refusal.ALREADY_REGISTERED,
    Refusal.NOTHING_TO_PAY,
    Refusal.NO_QUORUM,
    Refusal.TOO_EARLY,
    Refusal.UNKNOWN_OP,
]
"""What the steps that must fail fail with; every other step goes well."""


def record() -> dict[str, Any]:
    """The scenario: config of the chain, and the steps in order."""
    scene = RecordingScene()
    _start(scene)
    first = _epoch(scene, dict.fromkeys(PARTICIPANTS, 9 * NANO), signers=(0, 1, 3))
    _pay_out(scene, first)
    _discipline(scene)
    _govern(scene)
    earned = dict.fromkeys(PARTICIPANTS, 9 * NANO) | {PARTICIPANTS[0]: 10 * NANO + 1, PARTICIPANTS[7]: 60 * NANO}
    second = _epoch(scene, earned, signers=(1, 2, 3))
    scene.claim(PARTICIPANTS[7], proof.totals_tree(second))
    scene.update_contribution(PARTICIPANTS[7], 2, proof.totals_tree(second))
    scene.complete_withdrawal(PARTICIPANTS[3])
    scene.send(ANYONE, scene.rewards, NANO, layout.enable_quorum_body(scene.new_set(9)))
    assert scene.refusals == REFUSALS, scene.refusals
    return {"config": _text(devnet_config()), "steps": scene.steps}


def _start(scene: RecordingScene) -> None:
    scene.deploy(replace(PARAMS, emergency=True, guardian=GUARDIAN), metadata=PoolMetadata(name="replayed"))
    for participant in PARTICIPANTS[:8]:
        scene.register(participant)
    scene.register(PARTICIPANTS[0])  # refused in the registry, given back by the pool
    scene.owner_command(commands.SetReputation(target=scene.target(PARTICIPANTS[1]), reputation=700))
    scene.hand_over(4)


def _epoch(scene: RecordingScene, earned: Mapping[Address, int], *, signers: Sequence[int]) -> list[Leaf]:
    """Pay, finalize, settle; the settlement is computed anew by whoever replays."""
    scene.finish_epoch(100 * NANO)
    leaves = [leaf(participant, amount) for participant, amount in earned.items()]
    payload = scene.payload(leaves)
    set_id = scene.state().open_epochs[0].set_id or scene.domain.set_id
    domain = replace(scene.domain, set_id=set_id)
    cell = certificate.settle_certificate(domain, payload)
    scene.submit(cell, signers, set_id=set_id)
    scene.explain(
        "settle",
        settlement={
            "domain": {
                "global_id": domain.global_id,
                "pool": str(domain.pool),
                "set_id": set_id,
                "valid_until": certificate.VALID_FOREVER_S,
            },
            "payload": {
                "epoch": payload.epoch,
                "prev": payload.prev.hex(),
                "policy_hash": payload.policy_hash.hex(),
                "cut_root": payload.cut_root.hex(),
            },
            "leaves": _plain(leaves),
            "signers": [{"index": i, "seed": scene.keys_of[set_id][i].seed.hex()} for i in signers],
            "totals_root": payload.totals_root.hex(),
            "certificate_hash": bytes(cell.hash).hex(),
        },
    )
    assert scene.state().landed.epoch == payload.epoch
    return leaves


def _pay_out(scene: RecordingScene, leaves: Sequence[Leaf]) -> None:
    tree = proof.totals_tree(leaves)
    scene.claim(PARTICIPANTS[3], tree)
    scene.explain("claim", claim={"participant": str(PARTICIPANTS[3]), "leaves": _plain(leaves)})
    scene.claim(PARTICIPANTS[3], tree)  # refused: nothing to pay
    many = PARTICIPANTS[2:7]
    scene.push(many, tree)
    scene.explain("push", push={"participants": [str(it) for it in many], "leaves": _plain(leaves)})
    scene.update_contribution(PARTICIPANTS[2], 1, tree)


def _discipline(scene: RecordingScene) -> None:
    for owner, amount in ((PARTICIPANTS[1], 0), (PARTICIPANTS[2], 5 * NANO)):
        slash = commands.Slash(
            target=scene.target(owner),
            amount_nanoton=amount,
            reason=commands.SlashReason.FORK,
            evidence_hash=POLICY,
        )
        scene.command(slash)
    scene.command(commands.CancelSlash(target=scene.target(PARTICIPANTS[2])))
    scene.increase_stake(PARTICIPANTS[1], STAKE)
    scene.request_withdrawal(PARTICIPANTS[3], STAKE)
    scene.request_withdrawal(PARTICIPANTS[4], STAKE)
    scene.cancel_withdrawal(PARTICIPANTS[4])
    scene.command(commands.Suspend(target=scene.target(PARTICIPANTS[5]), suspended=True))
    scene.command(commands.Remove(target=scene.target(PARTICIPANTS[6])), (0,))  # refused: no quorum
    scene.heartbeat(PARTICIPANTS[0])
    scene.rotate_node_key(PARTICIPANTS[5], node_key(PARTICIPANTS[9]))
    scene.advance(8 * DAY_S)
    scene.sweep_slashed(PARTICIPANTS[1])


def _govern(scene: RecordingScene) -> None:
    params = replace(scene.pool_state().params, terms=replace(TERMS, fee_bps=700))
    scene.command(commands.ProposeParams(gov_seqno=scene.gov_seqno, params=params))
    scene.apply_params()  # refused: too early
    code = layout.code("participant_registry")
    upgrade = commands.ProposeUpgrade(
        gov_seqno=scene.gov_seqno, target=UpgradeTarget.REGISTRY, code_hash=bytes(code.hash)
    )
    scene.command(upgrade)
    scene.rotate()
    scene.apply_params()
    scene.guardian_pause()
    scene.command(commands.Resume(gov_seqno=scene.gov_seqno))
    fees = scene.state().pending_fees_nanoton
    scene.command(commands.FeesTo(gov_seqno=scene.gov_seqno, recipient=ANYONE, amount_nanoton=fees))
    message = commands.OwnerMessage(
        gov_seqno=scene.gov_seqno, dest=ANYONE, value_nanoton=NANO, body=layout.top_up_body()
    )
    scene.command(message)
    scene.advance(9 * DAY_S)
    scene.apply_upgrade(code)


class RecordingScene(Scene):
    """A scene that writes down every message that it sends, and what came of it."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[dict[str, Any]] = []
        self.refusals: list[Refusal] = []

    def send(self, source: Address, dest: Address, value: int, body: Cell, *, state_init: Cell | None = None) -> Sent:
        sent = super().send(source, dest, value, body, state_init=state_init)
        if sent.refusal is not None:
            self.refusals.append(sent.refusal)
        self.steps.append(
            {
                "now": self.ledger.now,
                "source": str(source),
                "dest": str(dest),
                "value": str(value),
                "body": _text(body),
                "state_init": None if state_init is None else _text(state_init),
                "transactions": [
                    {"account": str(t.address), "exit_code": t.exit_code, "gas": t.gas_used} for t in sent.transactions
                ],
                "accounts": {str(address): self._after(address) for address in self._contracts()},
            }
        )
        return sent

    def explain(self, name: str, **plain: object) -> None:
        """Name the last step, and give the plain values that the other side computes its body from."""
        self.steps[-1] |= {"name": name, **plain}

    def _contracts(self) -> tuple[Address, ...]:
        return self.pool, self.rewards, self.registry

    def _after(self, address: Address) -> dict[str, str]:
        state = self.ledger.account(address)
        assert state.data is not None
        return {"data_hash": bytes(state.data.hash).hex(), "balance": str(state.balance_nanoton)}


def _text(cell: Cell) -> str:
    return base64.b64encode(to_boc(cell)).decode()


def _plain(leaves: Sequence[Leaf]) -> list[dict[str, Any]]:
    return [
        {
            "participant": str(item.participant),
            "earned": str(item.earned_nanoton),
            "score": str(item.score),
            "tokens": str(item.tokens),
            "tasks": item.tasks,
            "uptime": item.uptime_s,
            "quality": item.quality,
            "reputation": item.reputation,
            "flags": item.flags,
        }
        for item in leaves
    ]


if __name__ == "__main__":
    json.dump(record(), sys.stdout)
