"""Texts for people: what is wrong shows, what is not known yet is a dash, amounts are exact where they must be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pool_fixture import operator_set, participant

from agent.errors import OperationError
from agent.screens import aligned, operators_text, operators_value, status_text, ton, ton_exact
from agent.verbs import DEFAULT_CONFIG
from contracts.model import NANO

POOL: dict[str, Any] = {
    "status": "active",
    "is_paused": False,
    "paused_until_s": None,
    "obstacle": None,
    "proposals": [],
}
PROPOSAL = {
    "kind": "propose_upgrade",
    "target": "rewards",
    "hash": "cd" * 32,
    "ready_s": 1_800_000_000,
    "expires_s": 1_800_086_400,
}
POLICY = {"hash": "ef" * 32, "is_held": False, "epoch": 4, "from_s": 1_800_000_000}
ENTRY: dict[str, Any] = {
    "status": "active",
    "not_earning": None,
    "reputation": 500,
    "stake_nanoton": 100 * NANO,
    "pending_nanoton": 0,
    "withdraw_at_s": None,
    "held_nanoton": 0,
    "held_until_s": None,
}


def peer(name: str, **changes: Any) -> dict[str, Any]:
    value = {"node_key": name * 32, "in_roster": True, "connected": True, "role": "operator"}
    return {**value, "address_from": "record", "heard_ago_s": None, "rtt_ms": 1.5, "dial_errors": [], **changes}


STATUS: dict[str, Any] = {
    "version": "0.1.0",
    "time_s": 1000,
    "uptime_s": 60,
    "node_key": "ab" * 32,
    "is_registered": True,
    "pool": POOL,
    "policies": [],
    "entry": ENTRY,
    "is_own_log_known": True,
    "chain": {"error": None, "seqno": 7, "age_s": 2, "epoch": 3, "clock": None},
    "evidence": {
        "valid": True,
        "valid_until_s": 1090,
        "error": None,
        "alarm": None,
        "collateral_error": None,
        "own": {"valid": True, "tcb_status": "UpToDate", "measurement": "image"},
        "peers": {
            "aa" * 32: {"valid": True, "error": None},
            "bb" * 32: {"valid": False, "error": {"code": "debug_refused", "message": "debug \x1b[2J"}},
            "cc" * 32: {"valid": False, "error": {"code": "anchor_stale"}, "valid_until_s": 1_800_000_000},
        },
        "settled": {"ee" * 32: 1_800_000_060, "ff" * 32: 1_800_000_000},
        "missing": ["dd" * 32],
        "place_taken_by": None,
    },
    "work": {"tokens": 12345, "tasks": 6, "head": 9, "error": None},
    "sources": [{"source": "engine", "instance": 0, "provenance": "vllm", "error": None, "notes": []}],
    "own": None,
    "reconciliation": None,
    "claimable_nanoton": None,
    "peers": [
        peer("11", heard_ago_s=1.6, address_from="config"),
        peer("22", connected=False, heard_ago_s=70.4, dial_errors=["/ip4/10.0.0.5/tcp/1: timed out", "\x1b[2J"]),
        peer("33", role="participant", connected=False, address_from=None),
        peer("44", role=None, in_roster=False),
    ],
    "not_dialled": {},
    "reach": {"weight": 3, "total_weight": 4},
    "close": None,
    "settled": None,
}
CLOSE = {
    "epoch": 3,
    "view": None,
    "observations": 2,
    "attested_weight": 0,
    "total_weight": 4,
    "certified": False,
    "waiting_for": 0,
}


def test_a_healthy_agent() -> None:
    assert status_text(STATUS, DEFAULT_CONFIG).splitlines() == [
        "agent     0.1.0, up 60 s, node abababababababab",
        "chain     block 7, 2 s old; epoch 3",
        "peers     1 of 2 operators, 0 of 1 participants connected; operators' weight in reach: 3 of 4",
        f"peers     {'22' * 8} operator AWAY, heard 70 s ago, address: record; "
        "/ip4/10.0.0.5/tcp/1: timed out; '\\x1b[2J'",
        f"peers     {'33' * 8} participant AWAY, never heard, no address known",
        f"peers     {'11' * 8} operator connected, heard 2 s ago, rtt 1.5 ms, address: config",
        "evidence  valid for 90 s (UpToDate, image)",
        "evidence  of others: 3 in force (2 as settled, the first until 2027-01-15 08:00 UTC), 2 refused or ran "
        "out, 1 not seen",
        f"evidence  {'bb' * 8} refused (debug_refused): 'debug \\x1b[2J'",
        f"evidence  {'cc' * 8} ran out at 2027-01-15 08:00 UTC, and no newer came",
        "work      12,345 tokens in 6 tasks since start, log at record 9",
        "source    engine: vllm",
        "entry     active, stake 100.000 TON, reputation 500",
    ]


NO_EVIDENCE: dict[str, Any] = {
    "valid": False,
    "valid_until_s": None,
    "error": None,
    "alarm": None,
    "collateral_error": None,
    "own": None,
    "peers": {},
    "settled": {},
    "missing": [],
    "place_taken_by": None,
}


SOURCE = {"source": "cocoon", "instance": 1, "provenance": "cocoon b75d444", "error": None, "notes": []}
BOOKS = {"alarm": None, "epochs": 3, "metered": 1000, "receipts": 900, "paid": None}
OWN = {
    "epoch": 2,
    "tokens": 50,
    "metered_tokens": 100,
    "score": 1,
    "total_score": 4,
    "reasons": ["receipts cover 50 %"],
}


@pytest.mark.parametrize(
    ("part", "value", "line"),
    [
        ("chain", None, "chain     not reached yet"),
        ("chain", {"seqno": 7, "age_s": 2, "epoch": 3, "error": "no answer", "clock": None}, "epoch 3; no answer"),
        ("chain", {"seqno": 7, "age_s": 2, "epoch": 3, "error": None, "clock": "set it"}, "epoch 3; set it"),
        ("evidence", {**NO_EVIDENCE, "alarm": "no new evidence can be made"}, "evidence  no new evidence can be made"),
        ("evidence", NO_EVIDENCE, "evidence  being made"),
        (
            "evidence",
            {**NO_EVIDENCE, "collateral_error": {"message": "404"}},
            "evidence  collateral is not renewed: 404",
        ),
        (
            "evidence",
            {**NO_EVIDENCE, "place_taken_by": "ee" * 32},
            f"evidence  {'ee' * 8} holds the place on this machine",
        ),
        (
            "evidence",
            {**NO_EVIDENCE, "place_taken_by": "ee" * 32, "is_gpu_taken": True},
            f"evidence  {'ee' * 8} holds the place on a GPU that this host proves",
        ),
        ("peers", [], "peers     nobody connected; operators' weight in reach: 3 of 4"),
        ("peers", [peer("11")] * 20, "peers     and 4 more, see --json"),
        (
            "not_dialled",
            {"p2p.peers[0].node_key": "aa is not registered"},
            "peers     p2p.peers[0].node_key: aa is not registered",
        ),
        ("reach", None, "of 1 participants connected\n"),
        ("reach", {"weight": 2, "total_weight": 3}, "peers     not more than two thirds of the operators' weight"),
        ("work", {"tokens": 0, "tasks": 0, "head": 1, "error": "refused"}, "log at record 1; refused"),
        ("entry", None, "entry     none: this node key is not registered and earns nothing"),
        ("entry", {**ENTRY, "status": "suspended", "not_earning": "suspended"}, "reputation 500; suspended"),
        (
            "entry",
            {**ENTRY, "pending_nanoton": NANO, "withdraw_at_s": 1_800_000_000},
            "1.000 TON of it asked back, paid from 2027-01-15 08:00 UTC on",
        ),
        (
            "entry",
            {**ENTRY, "held_nanoton": NANO, "held_until_s": 1_800_000_000},
            "1.000 TON slashed, open to appeal until 2027-01-15 08:00 UTC",
        ),
        ("pool", {**POOL, "is_paused": True, "status": "paused"}, "pool      paused until the operators resume it"),
        (
            "pool",
            {**POOL, "is_paused": True, "paused_until_s": 1_800_000_000},
            "pool      paused until 2027-01-15 08:00 UTC: nothing settles",
        ),
        ("pool", {**POOL, "status": "closed"}, "pool      closed for ever"),
        ("pool", {**POOL, "obstacle": "epoch 3 waits"}, "pool      epoch 3 waits"),
        (
            "pool",
            {**POOL, "proposals": [PROPOSAL]},
            "propose upgrade rewards cdcdcdcdcdcdcdcd: can be applied from 2027-01-15 08:00 UTC to 2027-01-16",
        ),
        ("policies", [POLICY], "in force from epoch 4 on, which begins 2027-01-15 08:00 UTC or later"),
        ("policies", [{**POLICY, "from_s": 999}], "epoch 4 is counted by it, and this agent cannot attest"),
        ("policies", [{**POLICY, "epoch": None}], "proposed, not in force before 2027-01-15 08:00 UTC"),
        ("is_own_log_known", False, "log       waiting for operators"),
        ("close", CLOSE, "close     epoch 3: view -, 2 observations, attested 0 of 4"),
        ("close", {**CLOSE, "view": 0, "certified": True}, "view 0, 2 observations, attested 0 of 4, certified"),
        ("close", {**CLOSE, "waiting_for": 3}, "attested 0 of 4, waiting for 3 objects of others"),
        ("settled", {"epoch": 2, "root": "cd" * 32}, "settled   epoch 2, root cdcdcdcdcdcdcdcd"),
        ("sources", [{**SOURCE, "error": "refused"}], "source    cocoon-1: refused"),
        ("sources", [{**SOURCE, "notes": ["its port is public"]}], "source    cocoon-1: its port is public"),
        ("own", OWN, "own part  epoch 2: 50 tokens credited of 100 metered, share 25.0 %"),
        ("own", OWN, "own part  less, as receipts cover 50 %"),
        ("reconciliation", {"alarm": "the meter missed work"}, "books     the meter missed work"),
        ("reconciliation", BOOKS, "books     1,000 tokens metered, 900 in receipts in 3 epochs"),
    ],
)
def test_what_is_to_be_known_shows(part: str, value: object, line: str) -> None:
    assert line in status_text({**STATUS, part: value}, DEFAULT_CONFIG)


@pytest.mark.parametrize(
    ("part", "value", "command"),
    [
        ({"own": OWN, "claimable_nanoton": NANO}, "to be claimed: ", "pool claim"),
        ({"entry": None}, "earns nothing: ", "pool register"),
        ({"entry": {**ENTRY, "not_earning": "too little; gpupool pool stake add"}}, "too little; ", "pool stake add"),
        ({"reconciliation": {"alarm": "look at it (gpupool work explain)"}}, "look at it (", "work explain"),
    ],
)
def test_commands_are_those_of_the_agent_that_was_asked(part: dict[str, Any], value: str, command: str) -> None:
    two = status_text({**STATUS, **part}, Path("/etc/gpupool/two/agent.toml"))
    assert f"{value}sudo gpupool {command} --config /etc/gpupool/two/agent.toml" in two
    other = status_text({**STATUS, **part}, Path("/srv/a.toml"))
    assert f"{value}gpupool {command} --config /srv/a.toml" in other


RESTART = (
    "agent     the agent that runs is of version 0.1.0, and does not tell of {} as this command expects: restart it"
)


def test_an_agent_of_the_version_before_is_shown_as_far_as_it_tells() -> None:
    since_then = {"sources", "own", "reconciliation", "claimable_nanoton"}
    of_before = {key: value for key, value in STATUS.items() if key not in since_then}
    lines = status_text(of_before, DEFAULT_CONFIG).splitlines()
    whole = status_text(STATUS, DEFAULT_CONFIG).splitlines()
    assert lines.pop(1) == RESTART.format("source, own part, books")
    assert lines == [line for line in whole if not line.startswith("source")]


@pytest.mark.parametrize(
    ("part", "value", "name"),
    [
        ("chain", {"seqno": 7}, "chain, entry"),
        ("peers", [{"node_key": "aa"}], "peers"),
        ("evidence", {**NO_EVIDENCE, "valid_until_s": 10**30}, "evidence"),
        ("work", {"tokens": 10**30, "tasks": 0, "head": 1, "error": None}, "work"),
        ("sources", None, "source"),
        ("time_s", "now", "evidence, policy"),
    ],
)
def test_a_part_of_another_form_is_named_and_the_rest_shown(part: str, value: object, name: str) -> None:
    lines = status_text({**STATUS, part: value}, DEFAULT_CONFIG).splitlines()
    assert lines[1] == RESTART.format(name)
    assert lines[-1].startswith("entry" if "entry" not in name else "source")


@pytest.mark.parametrize("tree", [{"node_key": 1}, {}, {**STATUS, "version": None}, {**STATUS, "uptime_s": 10**30}])
def test_what_is_no_agent_is_an_error(tree: dict[str, Any]) -> None:
    with pytest.raises(OperationError, match=r"what answers is not an agent \(.*\); see web.port"):
        status_text(tree, DEFAULT_CONFIG)


def places(tree: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """Where something stands in a tree."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(place for key, value in items for place in places(value, (*path, key)))]


def changed(tree: Any, path: tuple[Any, ...], value: object) -> Any:
    if not path:
        return value
    copy = tree.copy()
    copy[path[0]] = changed(tree[path[0]], path[1:], value)
    return copy


FULL = {**STATUS, "pool": {**POOL, "proposals": [PROPOSAL]}, "policies": [POLICY], "close": CLOSE, "own": OWN}
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**400), 10**400) | st.floats() | st.text(),
    lambda some: st.lists(some, max_size=2) | st.dictionaries(st.text(), some, max_size=2),
    max_leaves=3,
)


@given(st.sampled_from(places(FULL)[1:]), anything)
def test_nothing_that_answers_breaks_the_screen(path: tuple[object, ...], value: object) -> None:
    try:
        text = status_text(changed(FULL, path, value), DEFAULT_CONFIG)
    except OperationError:
        assert path[0] in ("version", "uptime_s", "node_key")
    else:
        assert all(line.isprintable() for line in text.split("\n"))
        assert text.encode()


def test_a_table_is_aligned() -> None:
    assert aligned([("a", "bb"), ("ccc", "d")]) == ["  a  bb", "ccc   d"]
    assert aligned([("a", "bb"), ("ccc", "d")], left=1) == ["a    bb", "ccc   d"]


@pytest.mark.parametrize(
    ("nanoton", "exact", "rounded"),
    [
        (0, "0 TON", "0.000 TON"),
        (1, "0.000000001 TON", "0.000 TON"),
        (NANO, "1 TON", "1.000 TON"),
        (1_234 * NANO + 500_000_000, "1234.5 TON", "1,234.500 TON"),
        (10**19 + 1, "10000000000.000000001 TON", "10,000,000,000.000 TON"),
    ],
)
def test_amounts(nanoton: int, exact: str, rounded: str) -> None:
    assert ton_exact(nanoton) == exact
    assert ton(nanoton) == rounded


def test_operators_with_their_weights() -> None:
    value = operators_value(operator_set(2, [1, 3]), [participant(0), participant(1)])
    assert value["total_weight"] == 4
    first, *rest = operators_text(value).splitlines()
    assert first == "2 operators, total weight 4:"
    assert [line.split()[0] for line in rest] == [participant(i).node_key.hex() for i in range(2)]
    assert [line.split()[2] for line in rest] == ["1", "3"]
    assert rest[0].endswith(f"  active  {participant(0).address}")
