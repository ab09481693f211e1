"""The policy: one document, one hash; and what is wrong in it is said by its key."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pool_fixture import POLICY_TEXT

from gossip.errors import InvalidPolicyError
from gossip.policy import (
    GPU_MODELS_MAX,
    POLICY_BYTES_MAX,
    SIGNERS_MAX,
    GuaranteedScore,
    HybridScore,
    ProportionalScore,
    TieredScore,
    WeightedScore,
    parse_policy,
)

TREE = tomllib.loads(POLICY_TEXT)
KEYS = [(table, key) for table, keys in TREE.items() for key in keys]


def write(tree: dict) -> str:
    """The tree as TOML, tables and keys in the order given."""
    lines = []
    for table, keys in tree.items():
        lines.append(f"[{table}]")
        for key, value in keys.items():
            lines.append(f"{key} = {literal(value)}")
    return "\n".join(lines)


def literal(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{name}" = {literal(item)}' for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(literal, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def changed(table: str, key: str, value: object) -> dict:
    return {name: {**keys, key: value} if name == table else keys for name, keys in TREE.items()}


def without(table: str, key: str) -> dict:
    return {name: {k: v for k, v in keys.items() if (name, k) != (table, key)} for name, keys in TREE.items()}


def test_a_policy_is_read() -> None:
    policy = parse_policy(POLICY_TEXT)
    assert policy.timing.view_s == 20
    assert policy.work.token_units == (1, 2)
    assert policy.work.source == "engine"
    assert policy.score == WeightedScore(tokens=500, uptime=200, tasks=200, quality=100)
    assert (policy.receipts.ceiling, policy.receipts.signers) == ("none", ())
    assert (policy.audit.outlier_mads, policy.reputation.forked) == (6, 200)
    assert dict(policy.attestation) == {}
    assert len(policy.hash) == 32


def test_the_hash_is_pinned() -> None:
    # The pool commits this hash on chain: an agent that computes another one cannot attest.
    expected = "438ee1196973627f719a3dda92f6a55c3d45aa561dcdc6434238c7336cf4bb06"
    assert parse_policy(POLICY_TEXT).hash.hex() == expected


@given(st.randoms(use_true_random=False))
def test_the_hash_does_not_depend_on_the_order_of_keys(random: object) -> None:
    shuffled = {
        table: dict(random.sample(list(TREE[table].items()), len(TREE[table])))
        for table in random.sample(list(TREE), len(TREE))
    }
    assert parse_policy(write(shuffled)).hash == parse_policy(POLICY_TEXT).hash


@pytest.mark.parametrize(
    "text",
    [
        POLICY_TEXT.replace(" = ", "="),
        POLICY_TEXT.replace("\n", "\r\n"),
        POLICY_TEXT.replace("86400", "86_400"),
        POLICY_TEXT.replace("[1, 2]", "[\n  1, # prompt\n  2,\n]"),
        POLICY_TEXT.replace('"weighted"', "'weighted'"),
        "# a comment\n" + POLICY_TEXT,
        POLICY_TEXT.replace("view_s = 20", "view_s = 0x14"),
    ],
)
def test_the_hash_does_not_depend_on_formatting(text: str) -> None:
    assert text != POLICY_TEXT
    assert parse_policy(text).hash == parse_policy(POLICY_TEXT).hash


CHANGES = [
    *((table, key, TREE[table][key] + 1) for table, key in KEYS if type(TREE[table][key]) is int and table != "score"),
    ("work", "token_units", [2, 1]),
    ("work", "token_units", [1]),
    ("work", "gpu_tokens_per_s", {"A": 1}),
    ("work", "gpu_tokens_per_s", {"A": 2}),
    ("work", "gpu_tokens_per_s", {"B": 1}),
    ("work", "gpu_tokens_per_s", {"A": 1, "B": 1}),
    *(("receipts", name, [letter * 64]) for name in ("signers", "worker_codes", "worker_proxies") for letter in "ab"),
    ("attestation", "anything", 1),
    ("attestation", "anything", True),
    ("attestation", "anything", "1"),
    ("attestation", "anything", []),
]


def test_any_changed_value_changes_the_hash() -> None:
    hashes = [parse_policy(write(changed(*change))).hash for change in CHANGES]
    hashes.append(
        parse_policy(POLICY_TEXT.replace("tokens = 500", "tokens = 400").replace("uptime = 200", "uptime = 300")).hash
    )
    assert len({parse_policy(POLICY_TEXT).hash, *hashes}) == len(hashes) + 1


@pytest.mark.parametrize(("table", "key"), KEYS)
def test_a_missing_key_is_named(table: str, key: str) -> None:
    with pytest.raises(InvalidPolicyError, match=key):
        parse_policy(write(without(table, key)))


@pytest.mark.parametrize("table", TREE)
def test_a_missing_table_is_named(table: str) -> None:
    with pytest.raises(InvalidPolicyError, match=table):
        parse_policy(write({name: keys for name, keys in TREE.items() if name != table}))


@pytest.mark.parametrize("table", [table for table in TREE if table != "attestation"])
def test_an_unknown_key_is_named(table: str) -> None:
    with pytest.raises(InvalidPolicyError, match="surprise"):
        parse_policy(write(changed(table, "surprise", 1)))


CHOICES = {("score", "strategy"), ("work", "source"), ("receipts", "ceiling")}


@pytest.mark.parametrize(("table", "key"), KEYS)
@pytest.mark.parametrize("wrong", ["text", 1.5, True, [[]], [1.5]], ids=repr)
def test_a_wrong_type_is_named(table: str, key: str, wrong: object) -> None:
    if (table, key) in CHOICES and wrong == "text":
        wrong = 1
    with pytest.raises(InvalidPolicyError, match=key):
        parse_policy(write(changed(table, key, wrong)))


A_KEY = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("table", "key", "wrong"),
    [
        *((table, key, -1) for table, key in KEYS if type(TREE[table][key]) is int),
        *((table, key, 1 << 62) for table, key in KEYS if type(TREE[table][key]) is int),
        ("timing", "view_s", 0),
        ("timing", "collect_s", 0),
        ("timing", "stage_s", 0),
        ("work", "window_max_s", 0),
        ("work", "witness_bucket_s", 0),
        ("work", "tokens_per_s_max", 0),
        ("work", "tokens_per_task_min", 0),
        ("work", "machine_nodes_max", 0),
        ("work", "source", "nvml"),
        ("work", "token_units", []),
        ("work", "token_units", [4]),
        ("work", "token_units", [1, 3]),
        ("work", "token_units", [0]),
        ("work", "token_units", [3]),
        ("work", "token_units", [1, 1]),
        ("work", "token_units", [1, 2, 8]),
        ("work", "gpu_tokens_per_s", {"H100": -1}),
        ("work", "gpu_tokens_per_s", {"H100": (1 << 32) + 1}),
        ("work", "gpu_tokens_per_s", {"H100": 1.5}),
        ("work", "gpu_tokens_per_s", {f"model {i}": 1 for i in range(GPU_MODELS_MAX + 1)}),
        ("receipts", "ceiling", "most"),
        ("receipts", "per_participant_max", 0),
        *(
            ("receipts", name, wrong)
            for name in ("signers", "worker_codes", "worker_proxies")
            for wrong in (
                [A_KEY[:-1]],
                [A_KEY.upper()],
                [A_KEY + "\\n"],
                ["g" * 64],
                [A_KEY, A_KEY],
                [f"{i:064x}" for i in range(SIGNERS_MAX + 1)],
            )
        ),
        ("score", "strategy", "winner takes all"),
        ("score", "tokens", 501),
        ("quality", "failure_max_per_mille", 0),
        ("quality", "latency_p95_target_ms", 0),
        ("audit", "outlier_mads", 0),
        ("reputation", "settled", 1001),
        ("reputation", "forked", 1001),
        ("reputation", "offline_after_s", 59),
    ],
)
def test_a_value_out_of_range_is_named(table: str, key: str, wrong: object) -> None:
    with pytest.raises(InvalidPolicyError, match=key):
        parse_policy(write(changed(table, key, wrong)))


def table_of(name: str, **changes: object) -> dict:
    return TREE | {name: TREE[name] | changes}


@pytest.mark.parametrize(
    ("tree", "named"),
    [
        pytest.param(table_of("receipts", ceiling="receipts"), r"receipts\.signers", id="receipts of nobody"),
        pytest.param(
            table_of("receipts", ceiling="worker-contract", worker_codes=[A_KEY]), "worker_proxies", id="no proxies"
        ),
        pytest.param(
            table_of("receipts", ceiling="worker-contract", worker_proxies=[A_KEY]), "worker_codes", id="no codes"
        ),
        pytest.param(
            table_of("receipts", ceiling="worker-contract", worker_proxies=[A_KEY], worker_codes=[A_KEY]),
            r"work\.source",
            id="contracts that count adjusted tokens, and raw ones metered",
        ),
        pytest.param(table_of("work", source="cocoon"), "token_units", id="raw units of cocoon"),
        pytest.param(
            table_of("work", source="cocoon", token_units=[1, 3]), "token_units", id="raw and adjusted together"
        ),
    ],
)
def test_what_does_not_go_together_is_refused(tree: dict, named: str) -> None:
    with pytest.raises(InvalidPolicyError, match=named):
        parse_policy(write(tree))


def test_a_pool_may_count_by_worker_contracts() -> None:
    tree = table_of("receipts", ceiling="worker-contract", worker_codes=[A_KEY], worker_proxies=[A_KEY])
    tree["work"] = TREE["work"] | {"source": "cocoon", "token_units": [3]}
    policy = parse_policy(write(tree))
    assert (policy.receipts.ceiling, policy.work.source, policy.work.token_units) == ("worker-contract", "cocoon", (3,))


HYBRID = {"strategy": "hybrid", "tokens": 700, "uptime": 200, "tasks": 100} | {
    "quality_min": 500,
    "quality_max": 1500,
    "reliability_min": 800,
    "reliability_max": 1200,
}
STRATEGIES = [
    ({"strategy": "weighted", "tokens": 1000, "uptime": 0, "tasks": 0, "quality": 0}, WeightedScore),
    ({"strategy": "proportional"}, ProportionalScore),
    ({"strategy": "tiered", "base": 850, "top": 500, "next": 300}, TieredScore),
    ({"strategy": "guaranteed-minimum", "minimum": 500}, GuaranteedScore),
    (HYBRID, HybridScore),
]


@pytest.mark.parametrize(("table", "kind"), STRATEGIES, ids=lambda value: getattr(value, "__name__", None))
def test_every_strategy_is_read_with_its_own_keys_and_no_others(table: dict, kind: type) -> None:
    policy = parse_policy(write(TREE | {"score": table}))
    assert type(policy.score) is kind
    assert all(getattr(policy.score, name) == value for name, value in table.items() if name != "strategy")
    with pytest.raises(InvalidPolicyError, match="surprise"):
        parse_policy(write(TREE | {"score": table | {"surprise": 1}}))
    for missing in table.keys() - {"strategy"}:
        with pytest.raises(InvalidPolicyError, match=missing):
            parse_policy(write(TREE | {"score": {name: value for name, value in table.items() if name != missing}}))


@pytest.mark.parametrize(
    ("table", "changes", "named"),
    [
        (STRATEGIES[0][0], {"uptime": 1}, "score: tokens, uptime, tasks, quality together"),
        (STRATEGIES[0][0], {"uptime": -1, "tokens": 1001}, "score.tokens"),
        (STRATEGIES[2][0], {"base": 1001}, "score.base"),
        (STRATEGIES[2][0], {"top": 600, "next": 401}, r"score.top \+ next"),
        (STRATEGIES[2][0], {"top": 0, "next": 0}, r"score.top \+ next"),
        (STRATEGIES[3][0], {"minimum": 1001}, "score.minimum"),
        (STRATEGIES[3][0], {"minimum": -1}, "score.minimum"),
        (HYBRID, {"tokens": 701}, "score: tokens, uptime, tasks together"),
        (HYBRID, {"quality_max": 2001}, "score.quality_max"),
        (HYBRID, {"reliability_min": -1}, "score.reliability_min"),
        (HYBRID, {"quality_min": 1501}, "score.quality_min"),
        (HYBRID, {"reliability_max": 799}, "score.reliability_min"),
    ],
)
def test_a_strategys_numbers_out_of_range_are_named(table: dict, changes: dict, named: str) -> None:
    with pytest.raises(InvalidPolicyError, match=named):
        parse_policy(write(TREE | {"score": table | changes}))


@pytest.mark.parametrize(
    "wrong",
    ["1.5", "1979-05-27", "07:32:00", "[1, 2.5]", "{a = 1.5}", "nan", str(1 << 64), str(-(1 << 63) - 1), str(10**30)],
)
def test_what_cannot_be_hashed_is_refused_even_in_the_attestation_table(wrong: str) -> None:
    with pytest.raises(InvalidPolicyError, match="attestation"):
        parse_policy(POLICY_TEXT + f"level = {wrong}\n")


@pytest.mark.parametrize(
    "text",
    ["", "[", "timing = 1", "\x00", "a = " + "[" * 10_000, "#" * (POLICY_BYTES_MAX + 1), POLICY_TEXT + POLICY_TEXT],
    ids=["empty", "no TOML", "no table", "NUL", "nested", "long", "twice"],
)
def test_what_is_no_policy(text: str) -> None:
    with pytest.raises(InvalidPolicyError, match="policy"):
        parse_policy(text)


@pytest.mark.parametrize(
    ("rates", "models", "expected"),
    [
        pytest.param({}, ["H100"], 1000, id="no table: the cap alone"),
        pytest.param({}, [], 1000, id="no table, no GPU"),
        pytest.param({"H100": 300}, [], 0, id="no GPU"),
        pytest.param({"H100": 300}, ["H100 SXM"], 300, id="by its beginning"),
        pytest.param({"H100": 300}, ["H100"], 300, id="the whole name"),
        pytest.param({"H100": 300}, ["NVIDIA H100"], 0, id="not by its middle"),
        pytest.param({"H100": 300}, ["H10", "h100"], 0, id="no part of a name, no other case"),
        pytest.param(
            {"H100": 300, "H100 PCIe": 200}, ["H100 PCIe 80GB"], 200, id="the longest beginning, though it is less"
        ),
        pytest.param({"H100 PCIe": 200, "H100": 300}, ["H100 PCIe 80GB"], 200, id="in any order"),
        pytest.param({"H100": 300, "A100": 150}, ["H100", "A100", "H100", "T4"], 750, id="a sum, unknown ones are 0"),
        pytest.param({"H100": 300}, ["H100"] * 4, 1000, id="at most the cap"),
        pytest.param({"H100": 0}, ["H100"], 0, id="a model that is worth nothing"),
        pytest.param({"": 5, "H": 300}, ["T4", "H1"], 305, id="a rate for all others"),
    ],
)
def test_the_rate_of_gpus(rates: dict[str, int], models: list[str], expected: int) -> None:
    policy = parse_policy(write(changed("work", "gpu_tokens_per_s", rates)))
    assert policy.work.tokens_per_s(models) == expected
    assert policy.work.tokens_per_s(models[::-1]) == expected


def test_tables_and_lists_in_one_another_are_bounded() -> None:
    with pytest.raises(InvalidPolicyError, match="levels deep"):
        parse_policy(POLICY_TEXT + "a" + ".a" * 600 + " = 1\n")


def test_a_table_and_a_list_never_have_one_hash() -> None:
    lists, tables = (parse_policy(POLICY_TEXT + f"x = {value}\n").hash for value in ("[]", "{}"))
    assert lists != tables
