"""The policy: one document, one hash; and what is wrong in it is said by its key."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pool_fixture import POLICY_TEXT

from gossip.errors import InvalidPolicyError
from gossip.policy import POLICY_BYTES_MAX, parse_policy

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
    return f'"{value}"' if isinstance(value, str) else str(value)


def changed(table: str, key: str, value: object) -> dict:
    return {name: {**keys, key: value} if name == table else keys for name, keys in TREE.items()}


def without(table: str, key: str) -> dict:
    return {name: {k: v for k, v in keys.items() if (name, k) != (table, key)} for name, keys in TREE.items()}


def test_a_policy_is_read() -> None:
    policy = parse_policy(POLICY_TEXT)
    assert policy.timing.view_s == 20
    assert policy.work.token_units == (1, 2)
    assert policy.score.strategy == "weighted"
    assert dict(policy.attestation) == {}
    assert len(policy.hash) == 32


def test_the_hash_is_pinned() -> None:
    # The pool commits this hash on chain: an agent that computes another one cannot attest.
    expected = "b277f1d1113fb5023feeadbbded203f7d5c8a5bae9e9384b27c3b94344e3f6c8"
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


@pytest.mark.parametrize(("table", "key"), KEYS)
@pytest.mark.parametrize("wrong", ["text", 1.5, True, [[]]], ids=repr)
def test_a_wrong_type_is_named(table: str, key: str, wrong: object) -> None:
    if (table, key) == ("score", "strategy") and wrong == "text":
        wrong = 1
    with pytest.raises(InvalidPolicyError, match=key):
        parse_policy(write(changed(table, key, wrong)))


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
        ("work", "token_units", []),
        ("work", "token_units", [4]),
        ("work", "token_units", [1, 3]),
        ("work", "token_units", [0]),
        ("score", "strategy", "winner takes all"),
        ("score", "tokens", 501),
        ("quality", "failure_max_per_mille", 0),
        ("quality", "latency_p95_target_ms", 0),
    ],
)
def test_a_value_out_of_range_is_named(table: str, key: str, wrong: object) -> None:
    with pytest.raises(InvalidPolicyError, match=key):
        parse_policy(write(changed(table, key, wrong)))


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
