"""Measures what every operation burns and what every contract weighs: `contracts/gas.json`.

    python -m tests.contracts.gas_table            write the table anew
    python -m tests.contracts.gas_table --check    exit code 1 and the differences where it is not what is measured

Figures are exact: TVM's gas depends on code, data and message alone. Certificates are measured by how many sign
out of how many; what depends on the number of participants is measured with so many in storage that was made for
it. A row names the gas of each contract in which the operation runs, in the order of the messages.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from contracts import commands, fees, layout
from contracts.devchain.accounts import AppliedTransaction
from contracts.layout.storage import REWARDS
from contracts.model import NANO, CertificateKind, Operator, OperatorSet, UpgradeTarget
from tests.contracts.lone_rewards import LoneRewards
from tests.contracts.pool_scene import (
    ANYONE,
    DURATION_S,
    GUARDIAN,
    OWNER,
    PARAMS,
    PARTICIPANTS,
    POLICY,
    STAKE,
    START_S,
    Scene,
    Sent,
    account,
    leaf,
    operator_keys,
)
from tests.contracts.test_registry_storage import FIVE_YEARS_S, NEXT_KEY, TREE, Full, entry, measure, registry_of, rent
from tests.contracts.test_rewards_gas import full_state, many, settle_payload

TABLE = Path(layout.__file__).parents[1] / "gas.json"
QUORUMS = ((1, 1), (7, 10), (34, 50), (67, 100), (134, 180))
"""(signers, operators); at most 180 operators make a set."""
SIZES = (10, 1000, 10_000)
"""Participants."""
PUSHED = 10

Row = dict[str, int]


def table(sizes: Sequence[int] = SIZES) -> dict[str, dict[str, Any]]:
    """Every figure, by section and operation; with fewer sizes the table has fewer rows."""
    return {
        "main path, 10 participants, 4 operators": main_path(),
        "certificates, signers of operators": {f"{few} of {all_}": certificates(few, all_) for few, all_ in QUORUMS},
        "registry, participants": {str(size): registry(size) for size in sizes},
        "rewards, participants": {str(size): rewards(size) for size in sizes},
        "storage, participants": {str(size): storage(size) for size in sizes},
    }


def main_path() -> dict[str, Row]:
    scene = Scene()
    params = replace(PARAMS, emergency=True, guardian=GUARDIAN)
    rows = {"init": _row(scene, scene.deploy(params))}
    rows["register"] = _row(scene, [scene.register(participant) for participant in PARTICIPANTS][-1])
    rows["enable_quorum"] = _row(scene, scene.enable_quorum(scene.new_set(1, 4)))
    rows["pay"] = _row(scene, scene.pay(100 * NANO))
    scene.advance(DURATION_S)
    rows["finalize"] = _row(scene, scene.finalize())
    leaves = [leaf(participant, 9 * NANO) for participant in PARTICIPANTS]
    rows["settle"] = _row(scene, scene.settle(leaves))
    changed = replace(params, max_participants=11)
    rows["propose_params"] = _row(
        scene, scene.command(commands.ProposeParams(gov_seqno=scene.gov_seqno, params=changed))
    )
    scene.advance(params.parameter_delay_s)
    rows["apply_params"] = _row(scene, scene.apply_params())
    rows["guardian_pause"] = _row(scene, scene.guardian_pause())
    rows["resume"] = _row(scene, scene.command(commands.Resume(gov_seqno=scene.gov_seqno)))
    code = layout.code("participant_registry")
    upgrade = commands.ProposeUpgrade(
        gov_seqno=scene.gov_seqno, target=UpgradeTarget.REGISTRY, code_hash=bytes(code.hash)
    )
    rows["propose_upgrade"] = _row(scene, scene.command(upgrade))
    scene.advance(params.upgrade_delay_s)
    rows["apply_upgrade"] = _row(scene, scene.apply_upgrade(code))
    return rows


def certificates(signers: int, count: int) -> dict[str, Row]:
    """By the last `signers` of `count` operators of equal weight; the quorum's arithmetic is the same for any."""
    scene = Scene()
    scene.deploy()
    scene.register(PARTICIPANTS[0])
    rows = {"enable_quorum": _row(scene, scene.enable_quorum(_members(scene, 1, count)))}
    by = range(count - signers, count)
    pot = scene.finish_epoch()
    rows["settle"] = _row(scene, scene.command(scene.payload([leaf(PARTICIPANTS[0], pot)]), by))
    slash = commands.Slash(
        target=scene.target(PARTICIPANTS[0]),
        amount_nanoton=0,
        reason=commands.SlashReason.FORK,
        evidence_hash=POLICY,
    )
    rows["slash"] = _row(scene, scene.command(slash, by))
    fee = commands.FeesTo(gov_seqno=scene.gov_seqno, recipient=OWNER, amount_nanoton=NANO)
    rows["fees_to"] = _row(scene, scene.command(fee, by))
    following = _members(scene, 2, count)
    set_hash = layout.operator_set_cell(following).hash
    rows["propose_set"] = _row(
        scene, scene.command(commands.ProposeSet(gov_seqno=scene.gov_seqno, set_hash=set_hash), by)
    )
    scene.advance(PARAMS.parameter_delay_s)
    rows["accept_set"] = _row(scene, scene.accept_set(following, by))
    return rows


def _members(scene: Scene, set_id: int, count: int) -> OperatorSet:
    scene.keys_of[set_id] = operator_keys(count, set_id=set_id)
    return OperatorSet(
        set_id=set_id, operators=tuple(Operator(node_key=key.public, weight=10) for key in scene.keys_of[set_id])
    )


def _row(scene: Scene, sent: Sent) -> Row:
    assert sent.refusal is None, sent.refusal
    names = {scene.pool: "pool", scene.rewards: "rewards", scene.registry: "registry"}
    row: Row = {}
    for transaction in sent.transactions:
        name = names.get(transaction.address)
        if name is not None:
            row[name] = row.get(name, 0) + transaction.gas_used
    return row


def _gas(transaction: AppliedTransaction) -> int:
    assert transaction.exit_code == 0, transaction.exit_code
    return transaction.gas_used


def registry(count: int) -> Row:
    """The registry's own gas; what the pool does with its counters is in the other sections."""
    full = Full(count)
    slash = {"amount_nanoton": STAKE // 2, "reason": commands.SlashReason.FORK, "evidence_hash": POLICY}
    newcomer = replace(entry(1), address=account("newcomer"), node_key=POLICY)
    done = (
        ("heartbeat", full.send(full.owner, layout.heartbeat_body())),
        ("update_worker_address", full.send(full.owner, layout.update_worker_body(account("next worker")))),
        ("rotate_node_key", full.rotate(NEXT_KEY)),
        ("increase_stake", full.send(full.owner, layout.increase_stake_body(2 * STAKE), 3 * STAKE)),
        ("request_withdrawal", full.send(full.owner, layout.request_withdrawal_body(STAKE))),
        ("cancel_withdrawal", full.send(full.owner, layout.cancel_withdrawal_body())),
        ("slash", full.relay(commands.Slash, **slash)),
        ("cancel_slash", full.relay(commands.CancelSlash)),
        ("reputation", full.relay(commands.SetReputation, reputation=7)),
        ("suspend", full.relay(commands.Suspend, suspended=True)),
        ("slash again", full.relay(commands.Slash, **slash)),
        ("remove", full.relay(commands.Remove)),
        (
            "update_contribution",
            full.send(ANYONE, layout.update_contribution_body(full.owner, 10, TREE.prove(full.owner))),
        ),
    )
    rows = {name: _gas(transaction) for name, transaction in done}
    full.ledger.advance(full.ledger.now + 30 * 86_400)
    rows["complete_withdrawal"] = _gas(full.send(ANYONE, layout.complete_withdrawal_body(full.owner)))
    rows["sweep_slashed"] = _gas(full.send(ANYONE, layout.sweep_slashed_body(full.owner)))
    rows["add_participant"] = _gas(full.add(newcomer))
    return rows


def rewards(count: int) -> Row:
    """Claims and pushes where everybody was paid before, and where nobody was; 64 epochs open."""
    everyone = many(count)
    rows: Row = {}
    for label, paid in (("nobody paid before", []), ("all paid before", everyone)):
        tree, state = full_state(everyone, paid)
        lone = LoneRewards(state)
        own, other = everyone[0], everyone[-1]
        rows[f"claim, {label}"] = _gas(lone.send(own, fees.CLAIM_NANOTON, layout.claim_body(own, tree.prove(own))))
        body = layout.claim_body(other, tree.prove(other))
        rows[f"claim for another, {label}"] = _gas(lone.send(ANYONE, fees.CLAIM_NANOTON, body))
        few = everyone[1 : PUSHED - 1] if count == PUSHED else everyone[1 : PUSHED + 1]
        pushed = lone.send(ANYONE, fees.push_nanoton(len(few)), layout.push_body(few, tree.prove_many(few)))
        rows[f"push of {len(few)}, {label}"] = _gas(pushed)
    lone.ledger.advance(START_S + DURATION_S)
    rows["finalize"] = _gas(lone.send(ANYONE, fees.FINALIZE_NANOTON, layout.finalize_body()))
    rows["settle"] = _gas(lone.relay(layout.command_cell(settle_payload(state)), CertificateKind.SETTLE))
    return rows


def storage(count: int) -> dict[str, Row]:
    """Cells and bits of data and code as storage is charged, and five years of it in nanoTON."""
    _, state = full_state(many(count), many(count))
    weighed = {
        "registry": (registry_of(count), layout.code("participant_registry")),
        "rewards": (REWARDS.cell(state), layout.code("reward_distribution")),
    }
    rows = {}
    for name, roots in weighed.items():
        cells, bits = measure(*roots)
        rows[name] = {"cells": cells, "bits": bits, "five_years_nanoton": rent(FIVE_YEARS_S, *roots)}
    return rows


def differences(measured: Any, stored: Any, at: str = "") -> Iterator[str]:
    """One line for each figure of `measured` that `stored` has not, or has otherwise."""
    if isinstance(measured, dict) and isinstance(stored, dict):
        for key, value in measured.items():
            yield from differences(value, stored.get(key), f"{at} / {key}" if at else key)
    elif measured != stored:
        yield f"{at}: {measured}, the table says {stored}"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="gas_table", description="Measure the contracts' gas and storage.")
    parser.add_argument("--check", action="store_true", help="compare with the table instead of writing it")
    measured = table()
    if not parser.parse_args(arguments).check:
        TABLE.write_text(json.dumps(measured, indent=1) + "\n")
        return 0
    found = list(differences(measured, json.loads(TABLE.read_text())))
    sys.stdout.write("".join(f"{line}\n" for line in found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
