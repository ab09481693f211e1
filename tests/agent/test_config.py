"""Settings: what is wrong is said in one line that names file, key and what is expected."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from agent.config import is_tcp_address, load_config
from agent.errors import ConfigError
from gossip.addresses import peer_id_text

KEY_BASE64 = "hyHNnrPKZZSDpEw1IqKwbe28T1OFoFGjRDjJ8yTXPuE="
POOL = "0:" + "ab" * 32

HERE = "/ip4/127.0.0.1/tcp/4001"
SEED: dict = {"node_key": "cd" * 32, "addresses": [HERE]}
PEER_ID, OTHER_ID = (peer_id_text(bytes.fromhex(key) * 32) for key in ("cd", "ce"))

GOOD: dict = {
    "data_dir": "data",
    "pool": {"network": -217, "address": POOL, "policy_file": "policy.toml"},
    "chain": {"liteservers": [{"host": "127.0.0.1", "port": 4924, "public_key": KEY_BASE64}]},
    "engine": {"url": "http://127.0.0.1:8000/metrics"},
    "attestation": {"provider": "software", "software_dir": "platform", "software_root_file": "root.pem"},
    "p2p": {"peers": [SEED]},
}


def literal(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        case list() | tuple():
            return "[" + ", ".join(map(literal, value)) + "]"
        case dict():
            return "{" + ", ".join(f"{k} = {literal(v)}" for k, v in value.items()) + "}"
        case _:
            return str(value)


def write(folder: Path, tree: dict) -> Path:
    path = folder / "agent.toml"
    path.write_text("".join(f"{key} = {literal(value)}\n" for key, value in tree.items()))
    return path


def changed(key: str, value: object) -> dict:
    """GOOD with one value changed; `key` is dotted, numbers are indexes, `...` as value removes it."""
    tree = copy.deepcopy(GOOD)
    *parents, last = key.split(".")
    node = tree
    for name in parents:
        node = node[int(name)] if isinstance(node, list) else node.setdefault(name, {})
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return tree


def test_a_config_is_read(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, GOOD))
    assert config.data_dir == tmp_path / "data"
    assert config.journal_file == tmp_path / "data" / "journal.sqlite"
    assert config.pool.global_id == -217
    assert str(config.pool.contract) == POOL
    assert config.chain.liteservers[0].key.hex().startswith("8721cd9e")
    assert config.resolve("policy.toml") == tmp_path / "policy.toml"
    assert config.resolve("/etc/policy.toml") == Path("/etc/policy.toml")
    assert config.web.host == "127.0.0.1"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pool.network", -217),
        ("pool.network", 0),
        ("pool.address", "EQDKbjIcfM6ezt8KjKJJLshZJJSqX7XOA4ff-W72r5gqPrHF"),
        ("web.port", 0),
        ("web.port", 65535),
        ("p2p.listen", ()),
        ("p2p.announce", ("/dns4/agent.example.org/tcp/4001",)),
        ("p2p.announce", ("/ip4/127.0.0.1/tcp/4001",)),
        ("engine.url", "https://engine:8000/metrics"),
        ("engine.url", "http://[::1]:8000/metrics"),
        ("meter.sample_interval_s", 1),
        ("chain.trust_level", 2),
        ("wallet.version", "v4r2"),
        ("data_dir", "/var/lib/gpupool"),
        ("log.level", "debug"),
    ],
)
def test_allowed_values(tmp_path: Path, key: str, value: object) -> None:
    config = load_config(write(tmp_path, changed(key, value)))
    if "." in key:
        table, name = key.split(".")
        assert getattr(getattr(config, table), name) == value
    else:
        assert config.data_dir == Path(str(value))


@pytest.mark.parametrize(
    ("key", "value", "named", "expected"),
    [
        # unknown keys
        ("surprise", 1, "surprise", "unknown key; known here are data_dir, pool, "),
        ("pool.surprise", 1, "pool.surprise", "unknown key; known here are "),
        ("chain.liteservers.0.surprise", 1, r"chain.liteservers\[0\].surprise", "host, port or public_key"),
        ("p2p.peers.0.surprise", 1, r"p2p.peers\[0\].surprise", "known here are node_key or addresses"),
        # missing keys
        ("data_dir", ..., "data_dir", "missing"),
        ("pool", ..., "pool", "missing"),
        ("pool.address", ..., "pool.address", "missing"),
        ("engine.url", ..., "engine.url", "missing"),
        ("chain.liteservers.0.port", ..., r"chain.liteservers\[0\].port", "missing"),
        # wrong types
        ("data_dir", 1, "data_dir", "expected text in quotes, not a whole number"),
        ("pool", 1, "pool", "expected a table"),
        ("pool.network", 1.5, "pool.network", "expected a whole number or text in quotes, not a fraction"),
        ("pool.network", True, "pool.network", "expected a whole number or text in quotes, not true or false"),
        ("web.port", "9464", "web.port", "expected a whole number"),
        ("web.port", True, "web.port", "expected a whole number"),
        ("web.port", 1.5, "web.port", "expected a whole number"),
        ("meter.window_s", "60", "meter.window_s", "expected a whole number, not text"),
        ("chain.timeout_s", "5", "chain.timeout_s", "expected a number"),
        ("chain.liteservers", {}, "chain.liteservers", "expected a list"),
        ("p2p.listen", "/ip4/0.0.0.0/tcp/4001", "p2p.listen", "expected a list"),
        ("p2p.listen", [1], r"p2p.listen\[0\]", "expected text"),
        # not one of the choices
        ("wallet.version", "v3r2", "wallet.version", 'expected "v4r2" or "v5r1", not \'v3r2\''),
        ("log.level", "loud", "log.level", "not 'loud'"),
        (
            "attestation.provider",
            "magic",
            "attestation.provider",
            'expected "cocoon", "configfs" or "software", not \'magic\'',
        ),
        # out of range
        ("pool.network", "devnet", "pool.network", "mainnet"),
        ("pool.network", 1 << 31, "pool.network", "global id"),
        ("pool.network", -(1 << 31) - 1, "pool.network", "global id"),
        ("pool.address", "", "pool.address", "not a TON address"),
        ("pool.address", "0:abcd", "pool.address", "32 bytes"),
        ("pool.address", "128:" + "ab" * 32, "pool.address", "int8"),
        ("pool.address", "-1:" + "ab" * 32, "pool.address", "workchain 0"),
        ("pool.address", "EQDKbjIcfM6ezt8KjKJJLshZJJSqX7XOA4ff-W72r5gqPrHG", "pool.address", "checksum"),
        ("chain.liteservers", [], "chain.liteservers", "at least one"),
        ("chain.liteservers.0.port", 0, r"chain.liteservers\[0\].port", "1 to 65535"),
        ("chain.liteservers.0.port", 65536, r"chain.liteservers\[0\].port", "1 to 65535"),
        ("chain.liteservers.0.public_key", "abc", r"chain.liteservers\[0\].public_key", "32 bytes in base64"),
        ("chain.liteservers.0.public_key", "ü" * 44, r"chain.liteservers\[0\].public_key", "32 bytes in base64"),
        ("p2p.peers.0.node_key", "cd" * 31, r"p2p.peers\[0\].node_key", "64 hex digits"),
        ("p2p.peers.0.node_key", "xy" * 32, r"p2p.peers\[0\].node_key", "64 hex digits"),
        ("p2p.peers.0.node_key", " ".join(["cd"] * 32), r"p2p.peers\[0\].node_key", "64 hex digits"),
        ("web.port", 65536, "web.port", "0 to 65535"),
        ("web.port", -1, "web.port", "0 to 65535"),
        ("engine.url", "127.0.0.1:8000", "engine.url", "http"),
        ("engine.url", "file:///etc/passwd", "engine.url", "http"),
        ("engine.url", "http://", "engine.url", "http://127.0.0.1:8000/metrics"),
        ("engine.url", "http://:8000/metrics", "engine.url", "http://127.0.0.1:8000/metrics"),
        ("engine.url", "http://engine:99999/", "engine.url", "http://127.0.0.1:8000/metrics"),
        ("engine.url", "http://[::1/metrics", "engine.url", "http://127.0.0.1:8000/metrics"),
        ("chain.liteservers.0.host", "", r"chain.liteservers\[0\].host", "a host name"),
        ("p2p.listen", ["0.0.0.0:4001"], r"p2p.listen\[0\]", "a multiaddr like /ip4/"),
        ("p2p.listen", ["/ip4/0.0.0.0/tcp/4001", ""], r"p2p.listen\[1\]", "a multiaddr like /ip4/"),
        ("p2p.announce", ["/ip4/203.0.113.7/udp/4001/quic"], r"p2p.announce\[0\]", "a multiaddr like /ip4/"),
        ("p2p", {"listen": [], "announce": ["/ip4/203.0.113.7/tcp/4001"]}, "p2p.announce", "while p2p.listen is empty"),
        ("p2p.announce", ["/ip4/203.0.113.7/tcp/4001"] * 9, "p2p.announce", "at most 8"),
        ("p2p.announce", ["/ip4/203.0.113.7/tcp/0"], r"p2p.announce\[0\]", "others reach this host"),
        ("p2p.announce", ["/ip4/0.0.0.0/tcp/4001"], r"p2p.announce\[0\]", "others reach this host"),
        ("p2p.peers.0.addresses", ["x"], r"p2p.peers\[0\].addresses\[0\]", "a multiaddr like /ip4/"),
        # libp2p would listen on all interfaces
        ("p2p.listen", ["/dns4/localhost/tcp/4001"], r"p2p.listen\[0\]", "an IP address of this host"),
        ("p2p.listen", [f"/ip4/0.0.0.0/tcp/4001/p2p/{PEER_ID}"], r"p2p.listen\[0\]", "without /p2p/"),
        ("p2p.announce", [f"/ip4/203.0.113.7/tcp/4001/p2p/{PEER_ID}"], r"p2p.announce\[0\]", "it goes without"),
        ("p2p.announce", ["/dns4/127.0.0.1/tcp/4001"], r"p2p.announce\[0\]", "an IP address stands behind /ip4"),
        ("p2p.peers", [SEED, SEED], r"p2p.peers\[1\].node_key", "another key than p2p.peers[0]"),
        ("p2p.peers", [SEED, SEED | {"node_key": "CD" * 32}], r"p2p.peers\[1\].node_key", "'" + "CD" * 32 + "'"),
        ("p2p.peers.0.addresses", [], r"p2p.peers\[0\].addresses", "1 to 8 addresses"),
        ("p2p.peers.0.addresses", [HERE] * 9, r"p2p.peers\[0\].addresses", "1 to 8 addresses, not 9"),
        ("p2p.peers.0.addresses", [HERE, "/ip4/203.0.113.7/tcp/0"], r"p2p.peers\[0\].addresses\[1\]", "port 0"),
        ("p2p.peers.0.addresses", ["/ip4/0.0.0.0/tcp/4001"], r"p2p.peers\[0\].addresses\[0\]", "own host"),
        ("p2p.peers.0.addresses", [f"{HERE}/p2p/{OTHER_ID}"], r"p2p.peers\[0\].addresses\[0\]", PEER_ID),
        # the software platform proves nothing on a public network
        ("pool.network", "mainnet", "attestation.provider", "development networks only, not on mainnet"),
        ("attestation.provider", "tpm", "attestation.provider", "configfs"),
        ("attestation.provider", "cocoon", "attestation.guest_address", "HOST:PORT"),
        ("attestation", {"provider": "cocoon", "guest_address": "here"}, "attestation.guest_address", "HOST:PORT"),
        ("attestation", {"provider": "software"}, "attestation.software_dir", "the folder"),
        ("attestation.software_root_file", ..., "attestation.software_root_file", "its root certificate"),
        ("attestation.pccs_url", "http://127.0.0.1", "attestation.pccs_url", "https://"),
        ("attestation.pccs_ca_file", "ca.pem", "attestation.pccs_ca_file", "pccs_url besides"),
        ("pool.network", "testnet", "attestation.provider", "inside a TDX guest"),
        ("pool.network", -239, "attestation.provider", "development networks only"),
        ("pool.network", -3, "attestation.provider", "development networks only"),
        ("chain.trust_level", 3, "chain.trust_level", "1 or 2"),
        ("chain.timeout_s", 0, "chain.timeout_s", "0.1 to 9"),
        ("chain.poll_interval_s", -1, "chain.poll_interval_s", "0.1 to 86400"),
        ("p2p.sync_interval_s", float("inf"), "p2p.sync_interval_s", "0.1 to 86400"),
        ("p2p.address_interval_s", 0, "p2p.address_interval_s", "0.1 to 86400"),
        ("p2p.close_interval_s", float("nan"), "p2p.close_interval_s", "0.1 to 86400"),
        ("receipts", {"port": 9464}, "receipts.port", "not web.port"),
        ("meter.window_s", 0, "meter.window_s", "1 to half of the policy's work.window_max_s"),
        ("meter.window_s", 43_201, "meter.window_s", "1 to half of the policy's work.window_max_s"),
        ("web.host", "localhost", "web.host", "an IP address of this host like 127.0.0.1, not 'localhost'"),
        ("web.host", "", "web.host", "an IP address"),
        ("web.host", "0.0.0.0", "web.host", "0.0.0.0 is not loopback; allowed_hosts in the same table"),
        ("web.allowed_hosts", ["gpu7.example:9464"], "web.allowed_hosts", "without port, as gpu7.example"),
        (
            "receipts",
            {"port": 9470, "host": "0.0.0.0"},
            "receipts.host",
            "not loopback; allowed_hosts in the same table",
        ),
        ("receipts", {"port": 9470, "host": "gpu7"}, "receipts.host", "an IP address"),
        ("receipts", {"port": 9470, "allowed_hosts": ["http://gpu7"]}, "receipts.allowed_hosts", "without port"),
        ("meter.sample_interval_s", 86_401, "meter.sample_interval_s", "0.1 to 86400"),
    ],
)
def test_one_line_names_file_key_and_expectation(
    tmp_path: Path, key: str, value: object, named: str, expected: str
) -> None:
    path = write(tmp_path, changed(key, value))
    with pytest.raises(ConfigError, match=f"^{path}: {named}") as caught:
        load_config(path)
    said = str(caught.value)
    assert expected in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "data_dir: missing"),
        (b"data_dir = ", "not TOML"),
        (b"data_dir = 'a'\ndata_dir = 'b'\n", "not TOML"),
        (b"\xff\xfe", "not TOML"),
        (b"a = " + b"[" * 10_000, "not TOML"),
    ],
    ids=["empty", "no value", "key twice", "no UTF-8", "nested"],
)
def test_what_is_no_config(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "agent.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=expected) as caught:
        load_config(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing.toml: missing.*gpupool init"):
        load_config(tmp_path / "missing.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ("text", "usable"),
    [
        ("/ip4/0.0.0.0/tcp/4001", True),
        ("/ip4/203.0.113.7/tcp/65535/p2p/12D3KooWA1B2C3", True),
        ("/ip6/::1/tcp/0", True),
        ("/dns4/agent-1.example.org/tcp/4001", True),
        ("/ip4/203.0.113.7", False),
        ("/ip4/203.0.113/tcp/4001", False),
        ("/ip4/::1/tcp/4001", False),
        ("/ip6/127.0.0.1/tcp/4001", False),
        ("/ip4/203.0.113.7/tcp/65536", False),
        ("/ip4/203.0.113.7/tcp/-1", False),
        ("/ip4/203.0.113.7/tcp/4001/", False),
        ("/ip4/203.0.113.7/tcp/4001\n", False),
        ("/dns/a:b/tcp/4001", False),
        ("/dns4/127.0.0.1/tcp/4001", False),
        ("/dns/2130706433/tcp/4001", False),
        ("/dns4/0x7f.1/tcp/4001", False),
        ("/dns4/127.0.0.0x1./tcp/4001", False),
        ("/dns4/127.0.0.1.example.org/tcp/4001", True),
        ("/dns4/xn--bcher-kva.example./tcp/4001", True),
        ("/dns4/" + "a" * 63 + ".example/tcp/4001", True),
        ("/dns4/" + "a" * 64 + ".example/tcp/4001", False),
        ("/dns4/a..example.org/tcp/4001", False),
        ("/dns4/my_host/tcp/4001", False),
        ("/dns4/-a.example/tcp/4001", False),
        ("/dns4/ab--c.example/tcp/4001", False),
        ("/dns4/./tcp/4001", False),
        ("ip4/203.0.113.7/tcp/4001", False),
    ],
)
def test_addresses_that_the_transport_can_use(text: str, usable: bool) -> None:
    assert is_tcp_address(text) is usable


@pytest.mark.parametrize("table", ["web", "receipts"])
@pytest.mark.parametrize(
    ("host", "names"),
    [
        ("127.0.0.2", []),
        ("::1", []),
        ("0.0.0.0", ["GPU7.example", "10.0.0.7"]),
        ("2001:db8::7", ["2001:db8::7"]),
    ],
)
def test_hosts_to_listen_on(tmp_path: Path, table: str, host: str, names: list[str]) -> None:
    tree = changed(table, {"port": 9470, "host": host, "allowed_hosts": names})
    found = getattr(load_config(write(tmp_path, tree)), table)
    assert (found.host, list(found.allowed_hosts)) == (host, names)


def test_secrets_have_no_place_in_it(tmp_path: Path) -> None:
    for key in ("identity.node_key", "wallet.mnemonic", "wallet.secret"):
        with pytest.raises(ConfigError, match="unknown key"):
            load_config(write(tmp_path, changed(key, "secret words")))


@pytest.mark.parametrize(
    "table",
    [
        {"provider": "configfs"},
        {"provider": "configfs", "gpu": True, "collateral_update": "early"},
        {"provider": "cocoon", "guest_address": "127.0.0.1:12001"},
        {"provider": "cocoon", "guest_address": "[::1]:12001", "guest_asks_for_work": False},
        {"provider": "configfs", "pccs_url": "https://pccs.example:8081", "pccs_ca_file": "ca.pem"},
    ],
)
def test_hardware_proves_on_a_public_network(tmp_path: Path, table: dict) -> None:
    tree = changed("attestation", table)
    tree["pool"]["network"] = "mainnet"
    config = load_config(write(tmp_path, tree))
    assert config.attestation.provider == table["provider"]


def test_another_root_is_refused_on_a_public_network(tmp_path: Path) -> None:
    tree = changed("attestation", {"provider": "configfs", "software_root_file": "root.pem"})
    tree["pool"]["network"] = "testnet"
    with pytest.raises(ConfigError, match="only Intel's root counts there"):
        load_config(write(tmp_path, tree))


@pytest.mark.parametrize("address", ["/ip4/127.0.0.1/tcp/4001", "/ip4/169.254.169.254/tcp/80", "/dns4/localhost/tcp/1"])
def test_the_own_host_is_not_announced_on_a_public_network(tmp_path: Path, address: str) -> None:
    tree = changed("attestation", {"provider": "configfs"})
    tree["pool"]["network"] = "mainnet"
    tree["p2p"]["announce"] = [address]
    with pytest.raises(ConfigError, match=r"p2p.announce\[0\]: expected an address with a port") as caught:
        load_config(write(tmp_path, tree))
    assert "on a public network it points to the reader's own host" in str(caught.value)
    assert repr(address) in str(caught.value)


def test_a_seed_behind_a_tunnel_is_named_by_its_address(tmp_path: Path) -> None:
    tree = changed("attestation", {"provider": "configfs"})
    tree["pool"]["network"] = "mainnet"
    tree["p2p"]["peers"][0]["addresses"] = [HERE, f"{HERE}/p2p/{PEER_ID}", "/dns4/agent.example.org/tcp/4001"]
    assert load_config(write(tmp_path, tree)).p2p.peers[0].addresses[0] == HERE
    tree["p2p"]["peers"][0]["addresses"] = ["/dns4/localhost/tcp/4001"]
    with pytest.raises(ConfigError, match=r"p2p.peers\[0\].addresses\[0\]: .*write /ip4/127.0.0.1"):
        load_config(write(tmp_path, tree))
