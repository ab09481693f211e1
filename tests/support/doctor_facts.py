"""What the doctor knows of an agent with which nothing is wrong, to be changed by tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
from contract_states import open_epoch, pinned, pool_state, rewards_state
from pool_fixture import EPOCH_S, START_S, key, operator_set, participant, policy

from agent.doctor.diagnosis import diagnose
from agent.doctor.facts import (
    ChainFacts,
    DaemonFacts,
    DaemonState,
    Facts,
    Holder,
    HostFacts,
    JournalFacts,
    PoolFacts,
    ServerFacts,
    SettingsFacts,
    SettledFacts,
    Unknown,
    WorkerFacts,
)
from agent.doctor.findings import Finding
from agent.doctor.status_form import Status, read_status
from contracts.model import NANO, Address, Leaf, PinnedTerms, PoolState, RewardsState
from gossip.policy import PoolPolicy

NOW_S = START_S + EPOCH_S + 5
VERSION = "1.0"
POLICY_FILE = "/etc/gpupool/policy.toml"
POOL = Address(0, b"p" * 32)
UNTRIED = Unknown("the agent runs")
ERROR = {"code": "tsm_missing", "message": "no TDX", "remedy": "run it in a guest"}
SETTLED = SettledFacts(epoch=1, total_score=100, leaves={}, is_dead=False)


def status_tree(**sections: Any) -> dict[str, Any]:
    """What a healthy agent answers, but for `sections`."""
    return {
        "version": VERSION,
        "uptime_s": 86_400,
        "node_key": key(0).public.hex(),
        "is_own_log_known": True,
        "chain": {"error": None, "clock": None, "seqno": 7, "age_s": 2, "epoch": 2, "epoch_end_s": NOW_S + 95},
        "pool": {"obstacle": None},
        "evidence": evidence(),
        "work": {"tokens": 12345, "tasks": 6, "error": None, "sampled_s": NOW_S - 3},
        "sources": [source()],
        "peers": [peer(1), peer(2), peer(3)],
        "not_dialled": {},
        "dialled_at": ["/ip4/203.0.113.7/tcp/4001"],
        "reach": {"weight": 4, "total_weight": 4},
        "close": None,
        "settled": {"epoch": 1, "adopted_epoch": 1},
        "own": own(),
        "claimable_nanoton": 0,
        "reconciliation": {"alarm": None},
        "versions": {"rifts": [], "key_in_use": None},
        "memory": {"used_bytes": 100 << 20, "limit_bytes": 1 << 30, "limited_by": "the control group"},
        "clock_step_back": None,
        **sections,
    }


def evidence(**changes: Any) -> dict[str, Any]:
    value = {"valid": True, "valid_until_s": NOW_S + 3600, "alarm": None, "error": None, "collateral_error": None}
    return {**value, "own": {"valid": True, "error": None}, "place_taken_by": None, **changes}


def source(name: str = "engine", **changes: Any) -> dict[str, Any]:
    value = {"source": name, "instance": 0, "provenance": "vllm", "sampled_s": NOW_S - 3, "error": None}
    return {**value, "gauges": {"requests_running": 2.0}, "notes": [], **changes}


def peer(i: int, **changes: Any) -> dict[str, Any]:
    value = {"node_key": key(i).public.hex(), "connected": True, "in_roster": True, "role": "operator"}
    return {**value, "dial_errors": [], **changes}


def own(**changes: Any) -> dict[str, Any]:
    value = {"epoch": 1, "tokens": 900, "metered_tokens": 900, "score": 25, "total_score": 100}
    return {**value, "earned_nanoton": 2 * NANO, "reasons": [], "flags": 0, **changes}


def leaf(**changes: Any) -> Leaf:
    value: dict[str, Any] = {"score": 25, "tokens": 900, "tasks": 9, "uptime_s": 90, "quality": 0, "reputation": 500}
    return Leaf(**{"participant": participant(0).address, "earned_nanoton": 2 * NANO, **value, **changes})


def pinned_now() -> PinnedTerms:
    return pinned(1, policy().hash)


def rewards(**changes: Any) -> RewardsState:
    """In epoch 2, with epoch 1 settled and all that was earned claimed."""
    young = rewards_state(POOL, start_s=START_S + EPOCH_S, end_s=START_S + 2 * EPOCH_S)
    landed = replace(young.landed, epoch=1, settled_s=START_S + EPOCH_S + 3)
    paid = {participant(0).address.account: 2 * NANO}
    grown = replace(young, current_epoch=2, running=pinned_now(), next=pinned_now(), landed=landed, paid_nanoton=paid)
    return replace(grown, **changes)


def state(**changes: Any) -> PoolState:
    return pool_state(**{"policy_hash": policy().hash, "operator_set": operator_set(4), **changes})


def pool_facts(**changes: Any) -> PoolFacts:
    facts = PoolFacts(
        time_s=NOW_S - 2,
        state=state(),
        rewards=rewards(),
        entry=replace(participant(0), joined_s=NOW_S - 86_400),
        wallet=participant(0).address,
        wallet_nanoton=5 * NANO,
        worker=Unknown("no worker contract is named"),
        worker_tokens=Unknown("no worker contract is named"),
    )
    return replace(facts, **changes)


def policies(text: PoolPolicy | None = None) -> dict[bytes, PoolPolicy]:
    """The document in force, or another in its place."""
    return {policy().hash: text or policy()}


def asking_receipts() -> PoolPolicy:
    """The document of a pool that credits no more than receipts cover."""
    return replace(policy(), receipts=msgspec.structs.replace(policy().receipts, ceiling="receipts"))


def counting(source_name: str) -> PoolPolicy:
    """The document of a pool that counts what sources of this kind report."""
    return replace(policy(), work=msgspec.structs.replace(policy().work, source=source_name))


def healthy() -> Facts:
    """Nothing is wrong."""
    return Facts(
        now_s=NOW_S,
        version=VERSION,
        settings=SettingsFacts(
            config=None,
            node_key=None,
            wallet_key=None,
            closed_keys={},
            policy=None,
            policy_files=(POLICY_FILE,),
            servers=None,
            proof=None,
            changed_s=NOW_S - 100_000,
        ),
        node_key=key(0).public,
        host=HostFacts(
            data_dir=None,
            free_bytes=100 << 30,
            web_port=UNTRIED,
            receipts_port=UNTRIED,
            p2p_ports=UNTRIED,
            prover=None,
        ),
        journal=JournalFacts(
            missing=None,
            unusable=None,
            damage=None,
            windows_waiting=0,
            settled=SettledFacts(epoch=1, total_score=100, leaves={participant(0).address: leaf()}, is_dead=False),
        ),
        daemon=DaemonFacts(
            state=DaemonState.UP, detail="", status=read_status(status_tree()), healthy=None, ready=None
        ),
        chain=ChainFacts(
            error=None,
            conflict=None,
            global_id=-217,
            wanted_id=-217,
            clock_ahead_s=2,
            servers=(ServerFacts(name="127.0.0.1:4924", error=None, time_s=NOW_S - 2),),
            servers_known=1,
        ),
        pool=pool_facts(),
        pool_absent=None,
        policies=policies(),
        sources=_sources(),
        workers=(WorkerFacts(name="worker 0", is_image_listed=True, is_model_listed=True, exposed=(), guest=None),),
    )


def _sources(**sections: Any) -> Any:
    return read_status(status_tree(**sections)).sources


# Changes.


def told(**sections: Any) -> Facts:
    """The agent tells this besides."""
    tree = status_tree(**sections)
    return replace(_with_status(read_status(tree)), sources=_sources(**sections))


def _with_status(status: Status) -> Facts:
    facts = healthy()
    assert isinstance(facts.daemon, DaemonFacts)
    return replace(facts, daemon=replace(facts.daemon, status=status))


def changed(part: str, **changes: Any) -> Facts:
    """One group of facts is otherwise."""
    facts = healthy()
    return replace(facts, **{part: replace(getattr(facts, part), **changes)})


def with_daemon(daemon_state: DaemonState, detail: str) -> Facts:
    """The agent does not answer as it should."""
    silent = Unknown("no agent answers")
    daemon = DaemonFacts(state=daemon_state, detail=detail, status=silent, healthy=silent, ready=silent)
    return replace(healthy(), daemon=daemon)


def stopped_for(key_in_use: str) -> Facts:
    """The agent is down, as another one uses its key."""
    down = with_daemon(DaemonState.DOWN, "refused")
    return replace(down, journal=replace(healthy().journal, key_in_use=key_in_use))


def rift(what: str, **changes: Any) -> Facts:
    """Operators are of another version of this."""
    found = {"what": what, "stops": False, "is_outdated": False, "text": f"of another {what}", **changes}
    return told(versions={"rifts": [found], "key_in_use": None})


def held_by(holder: Holder) -> Facts:
    """Nobody answers, and this process holds the journal."""
    facts = with_daemon(DaemonState.SILENT, "no answer")
    assert isinstance(facts.daemon, DaemonFacts)
    return replace(facts, daemon=replace(facts.daemon, holder=holder))


def worker(**changes: Any) -> Facts:
    """The Cocoon worker tells otherwise."""
    fine = WorkerFacts(name="worker 0", is_image_listed=True, is_model_listed=True, exposed=(), guest=None)
    return replace(healthy(), workers=(replace(fine, **changes),))


def stalled(**close: Any) -> Facts:
    """Epoch 1 ended long ago and is open."""
    pot = open_epoch(
        1, start_s=START_S, end_s=START_S + EPOCH_S, finalized_s=START_S + EPOCH_S, policy_hash=policy().hash
    )
    landed = replace(rewards().landed, epoch=0)
    late_s = START_S + EPOCH_S + 1000
    return replace(
        told(close={"epoch": 1, "view": 2, "operators": 4, "observations": 2, "total_weight": 4, **close}),
        pool=pool_facts(time_s=late_s, rewards=rewards(open_epochs=(pot,), landed=landed)),
    )


def of_contract(named: Address | None, **changes: Any) -> Facts:
    """The pool credits what the chain paid a Cocoon worker."""
    of_chain = replace(
        policy(),
        work=msgspec.structs.replace(policy().work, source="cocoon"),
        receipts=msgspec.structs.replace(policy().receipts, ceiling="worker-contract"),
    )
    pool = pool_facts(entry=replace(participant(0), worker=named), **changes)
    return replace(told(sources=[source("cocoon")]), policies=policies(of_chain), pool=pool)


def of_entry(**changes: Any) -> Facts:
    return changed("pool", entry=replace(participant(0), **changes))


# The outcome.


def heard(facts: Facts) -> list[Finding]:
    """What a user hears of unasked."""
    return [each for each in diagnose(facts) if not each.is_fine]


PASSED_BY = {
    "web-port-taken",
    "uplink-down",
    "receipts-port-taken",
    "p2p-port-taken",
    "worker-unset",
    "worker-refused",
    "worker-unpaid",
}
"""While an agent runs that measures an engine, in a pool that counts by no worker contract."""
