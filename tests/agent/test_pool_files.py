"""Files that `gpupool pool` reads, and where it finds its chain: each a value, or one line that says what is wrong."""

from __future__ import annotations

import argparse
import base64
import json
from pathlib import Path
from typing import Any

import pytest
from pool_fixture import POLICY_TEXT, key, operator_set, policy

from agent.config import load_pool_config
from agent.errors import ConfigError
from agent.pool import access, files
from agent.servers import config_servers, read_global_config
from contracts import layout
from contracts.model import NANO, Address, EpochTerms, PoolMetadata, PoolParams

ROOT = Path(__file__).parents[2]
KEY_BASE64 = "hyHNnrPKZZSDpEw1IqKwbe28T1OFoFGjRDjJ8yTXPuE="
BASE = PoolParams(terms=EpochTerms(fee_bps=200, policy_hash=bytes(32)))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(folder: Path, text: str) -> Path:
    path = folder / "file.toml"
    path.write_text(text)
    return path


# Parameters, metadata, sets, code.


def test_a_file_changes_what_it_names(folder: Path) -> None:
    (folder / "policy.toml").write_text(POLICY_TEXT)
    text = 'policy_file = "policy.toml"\nmin_stake = "12.5"\nmax_refund = "0"\nemergency = true\nguardian = "0:%s"\n'
    params = files.read_params(written(folder, text % ("ab" * 32)), BASE)
    assert params.terms.policy_hash == policy().hash
    assert params.rules.min_stake_nanoton == 125 * NANO // 10
    assert params.terms.max_refund_nanoton == 0
    assert params.guardian == Address(0, bytes.fromhex("ab" * 32))
    assert (params.terms.fee_bps, params.max_participants) == (200, BASE.max_participants)
    assert files.read_params(written(folder, 'guardian = ""'), params).guardian is None


def test_parameters_written_are_parameters_read(folder: Path) -> None:
    params = files.read_params(written(folder, 'min_distribution = "0.000000001"\nheartbeat_timeout_s = 60'), BASE)
    assert files.read_params(written(folder, files.params_toml(params)), BASE) == params


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fee_bps = 10001", "fee_bps: expected 0..10000"),
        ("fee_bps = 1.5", "fee_bps: expected a whole number"),
        ('fee_bps = "1"', "fee_bps: expected a whole number"),
        ("surprise = 1", "surprise: unknown key"),
        ("upgrade_delay_s = 604800", "upgrade_delay_s: expected 691200"),
        ('min_stake = "0"', "min_stake 0: expected an amount"),
        ("min_stake = 100", "min_stake: expected text in quotes"),
        ('max_refund = "1e9"', "max_refund 1e9: expected an amount"),
        ('policy_hash = "ab"', "policy_hash ab: expected 64 hex digits"),
        (f'policy_hash = "{"ab" * 32}"\npolicy_file = "x"', "expected one of them"),
        ('policy_file = "none.toml"', "none.toml: cannot be read"),
        ('guardian = "me"', "guardian: not a TON address"),
        ("not toml", "not TOML"),
    ],
)
def test_parameters_that_are_none(folder: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        files.read_params(written(folder, text), BASE)


def test_metadata(folder: Path) -> None:
    assert files.read_metadata(written(folder, 'name = "A"\nwebsite = "https://a.example"')) == PoolMetadata(
        name="A", website="https://a.example"
    )
    with pytest.raises(ConfigError, match="name: 65 bytes, at most 64"):
        files.read_metadata(written(folder, f'name = "{"a" * 65}"'))
    with pytest.raises(ConfigError, match="name: expected printable text"):
        files.read_metadata(written(folder, r'name = "\u001b[31m"'))


def test_a_set_written_is_a_set_read(folder: Path) -> None:
    operators = operator_set(3, [1, 2, 3])
    assert files.read_set(written(folder, files.set_toml(operators)), set_id=1) == operators


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "operators: missing"),
        (['node_key = "ab"'], r"operators\[0\].node_key ab: expected 64 hex digits"),
        ([f'node_key = "{key(0).public.hex()}"'] * 2, "a node key stands twice"),
        ([f'node_key = "{key(0).public.hex()}"\nweight = 0'], "weight is at least 1"),
    ],
)
def test_sets_that_are_none(folder: Path, lines: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        files.read_set(written(folder, "\n".join(f"[[operators]]\n{line}" for line in lines)), set_id=1)


def test_code_is_a_boc_or_an_artifact(folder: Path) -> None:
    code = layout.code("pool_operator")
    path = folder / "code"
    path.write_bytes(code.to_boc())
    assert files.read_code(path).hash == code.hash
    path.write_text(json.dumps({"code_boc_base64": base64.b64encode(code.to_boc()).decode()}))
    assert files.read_code(path).hash == code.hash
    for content in (b"", b"{", b"{}", b'{"code_boc_base64": 1}', b'{"code_boc_base64": "?"}', b"\xb5\xee\x9c\x72"):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="expected a contract's code"):
            files.read_code(path)


def test_a_file_is_bounded(folder: Path) -> None:
    path = folder / "large"
    path.write_bytes(bytes(files.FILE_BYTES_MAX + 1))
    with pytest.raises(ConfigError, match="longer than"):
        files.read_code(path)


# Where the chain is.

SERVERS = {
    "liteservers": [
        {"ip": 84478511, "port": 19949, "id": {"@type": "pub.ed25519", "key": KEY_BASE64}},
        {"ip": -2018135749, "port": 53312, "id": {"@type": "pub.ed25519", "key": KEY_BASE64}},
    ],
    "dht": {"ignored": True},
}


def test_the_global_configs_liteservers(folder: Path) -> None:
    (folder / "global.json").write_text(json.dumps(SERVERS))
    first, second = read_global_config(folder / "global.json")
    assert (str(first), str(second)) == ("5.9.10.47:19949", "135.181.177.59:53312")
    assert first.public_key == base64.b64decode(KEY_BASE64)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ([], "names no liteservers"),
        ({}, "expected a global config of TON"),
        ([{"ip": "5.9.10.47"}], "expected a global config of TON"),
        ([{**SERVERS["liteservers"][0], "ip": 1 << 32}], r"liteservers\[0\].ip: expected a 32-bit integer"),  # type: ignore[dict-item,index]
        ([{**SERVERS["liteservers"][0], "port": 0}], r"liteservers\[0\].port: expected a port"),  # type: ignore[dict-item,index]
        ([{"ip": 1, "port": 1, "id": {"key": "AAAA"}}], r"liteservers\[0\].id.key: expected 32 bytes"),
        ([{"ip": 1, "port": 1, "id": {"key": "?"}}], r"liteservers\[0\].id.key: expected 32 bytes"),
    ],
)
def test_global_configs_that_are_none(folder: Path, change: Any, said: str) -> None:
    path = folder / "global.json"
    path.write_text(json.dumps({"liteservers": change}))
    with pytest.raises(ConfigError, match=said):
        read_global_config(path)


def test_a_global_config_that_is_not_there(folder: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file or directory; download"):
        read_global_config(folder / "none.json")


@pytest.mark.parametrize(("network", "global_id"), [("mainnet", -239), ("testnet", -3)])
def test_the_examples_for_the_public_networks_can_be_used(folder: Path, network: str, global_id: int) -> None:
    (folder / "global.config.json").write_text(json.dumps(SERVERS))
    path = folder / "pool.toml"
    path.write_text((ROOT / "packaging" / f"config.{network}.toml").read_text())
    config = load_pool_config(path)
    assert config.pool.global_id == global_id
    assert [str(server) for server in config_servers(config)] == ["5.9.10.47:19949", "135.181.177.59:53312"]


def hand(**changes: Any) -> argparse.Namespace:
    values: dict[str, Any] = {
        "verb": "pool pay",
        "pool": "0:" + "ab" * 32,
        "network": "testnet",
        "liteserver": [f"127.0.0.1:1:{KEY_BASE64}"],
        "global_config": None,
        "wallet_key": Path("owner.key"),
        "wallet_version": "v4r2",
        "node_key": Path("node.key"),
        "dry_run": False,
    }
    return argparse.Namespace(**(values | changes))


def test_everything_by_hand(folder: Path) -> None:
    (folder / "global.json").write_text(json.dumps(SERVERS))
    found = access.access_of(hand(global_config=folder / "global.json"))
    assert [server.port for server in found.servers] == [1, 19949, 53312]
    assert (found.global_id, found.wallet_version) == (-3, "v4r2")
    assert found.wallet_lock_file == Path("owner.key.lock")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pool": None}, "pool pay: --pool missing"),
        ({"network": None, "wallet_key": None}, "pool pay: --network, --wallet-key missing"),
        ({"liteserver": None}, "pool pay: --liteserver or --global-config missing"),
        ({"network": "moon"}, "--network moon: expected"),
        ({"pool": "me"}, "--pool: not a TON address"),
    ],
)
def test_half_by_hand_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        access.access_of(hand(**changes))
