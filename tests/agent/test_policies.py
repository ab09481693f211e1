"""The policy documents: which is in force, which will be needed, which files are refused."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from contract_states import open_epoch, pinned, pool_state, rewards_state, terms
from epochs import policy_work
from pool_fixture import EPOCH_S, POLICY_TEXT, START_S, policy

from agent.config import parse_config
from agent.errors import ConfigError
from agent.policies import NeededPolicy, Policies, load_policies, needed_policies
from agent.setup import Answers, config_text
from contracts.model import DAY_S, Address, CertificateKind, PoolParams, Proposal, RewardsState

OLD, NEW, PROPOSED = (bytes([i]) * 32 for i in (1, 2, 3))
END_S = START_S + EPOCH_S


def rewards(running: bytes, following: bytes, **changes: Any) -> RewardsState:
    made = rewards_state(Address(0, bytes(32)), start_s=START_S, end_s=END_S, current_epoch=5, **changes)
    return replace(made, running=pinned(1, running), next=pinned(1, following))


def test_a_settled_pool_needs_the_policy_in_force() -> None:
    needed = needed_policies(pool_state(policy_hash=OLD), rewards(OLD, OLD))
    assert needed == (NeededPolicy(policy_hash=OLD, epoch=5, from_s=START_S),)


def test_a_change_is_needed_from_the_next_epoch_on_and_a_proposal_from_when_it_can_be_applied() -> None:
    proposal = Proposal(
        kind=CertificateKind.PROPOSE_PARAMS, hash=bytes(32), since_s=START_S, params=PoolParams(terms=terms(PROPOSED))
    )
    upgrade = Proposal(kind=CertificateKind.PROPOSE_UPGRADE, hash=bytes(32), since_s=START_S)
    needed = needed_policies(pool_state(policy_hash=NEW, pending=(proposal, upgrade)), rewards(OLD, NEW))
    assert needed == (
        NeededPolicy(policy_hash=OLD, epoch=5, from_s=START_S),
        NeededPolicy(policy_hash=NEW, epoch=6, from_s=END_S),
        NeededPolicy(policy_hash=PROPOSED, epoch=None, from_s=START_S + 3 * DAY_S),
    )


def test_an_open_epoch_needs_the_policy_that_it_began_under() -> None:
    epoch = open_epoch(4, start_s=START_S - EPOCH_S, end_s=START_S, finalized_s=START_S, policy_hash=OLD)
    needed = needed_policies(pool_state(policy_hash=NEW), rewards(NEW, NEW, open_epochs=(epoch,)))
    assert [(each.policy_hash, each.epoch) for each in needed] == [(OLD, 4), (NEW, 5)]


def test_what_is_not_held_does_not_come_into_force() -> None:
    first = policy()
    second = replace(first, work=policy_work(first, window_max_s=30), hash=NEW)
    policies = Policies(first, second)
    assert (policies.in_force, policies.window_max_s) == (first, 30)
    policies.turn_to(NEW)
    assert policies.in_force == second
    policies.turn_to(PROPOSED)
    assert policies.in_force == second
    assert policies.get(PROPOSED) is None
    assert first.hash in policies
    assert PROPOSED not in policies


def test_both_files_of_the_config_are_read(tmp_path: Path) -> None:
    answers = Answers(
        network=-217,
        pool=f"0:{'ab' * 32}",
        policy_file="policy.toml",
        liteservers=[("127.0.0.1", 4924, base64.b64encode(bytes(32)).decode())],
        work={"engine": {"url": "http://127.0.0.1:8000/metrics"}},
        attestation={"provider": "software", "software_dir": "platform", "software_root_file": "root.der"},
        more={"pool": {"next_policy_file": "next.toml"}},
    )
    (tmp_path / "policy.toml").write_text(POLICY_TEXT)
    (tmp_path / "next.toml").write_text(POLICY_TEXT.replace("view_s = 20", "view_s = 30"))
    config = parse_config(config_text(answers), tmp_path / "agent.toml")
    assert [each.timing.view_s for each in load_policies(config)] == [20, 30]
    (tmp_path / "next.toml").write_text("[timing]")
    with pytest.raises(ConfigError, match="next_policy_file"):
        load_policies(config)
    (tmp_path / "next.toml").unlink()
    with pytest.raises(ConfigError, match="next_policy_file: cannot be read"):
        load_policies(config)
