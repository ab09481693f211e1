"""Settings: one TOML file, decoded strictly into a frozen tree.

Decides whether a file is a config. Unknown keys, wrong types and values out of range are refused with one
line that names file, key and expectation. Relative paths are relative to the file's folder. Secrets are
never in here, only the paths of key files. The software platform is refused on TON's public networks.

Source: ARCHITECTURE, "Choices already made" (settings).
"""

from __future__ import annotations

import base64
import binascii
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from agent.errors import DENIED, ConfigError
from agent.listening import listen_address
from agent.tables import (
    NETWORKS,
    AttestationTable,
    ChainTable,
    CocoonTable,
    EngineTable,
    GpusTable,
    IdentityTable,
    LogTable,
    MeterTable,
    P2pTable,
    PeerTable,
    PoolPlaceTable,
    PoolTable,
    ReceiptsTable,
    Table,
    WalletTable,
    WebTable,
)
from agent.toml_errors import explained, not_toml
from contracts.errors import InvalidValueError
from gossip.addresses import ADDRESSES_MAX, TcpAddress, parse_tcp_address, require_dialable, require_leads_to
from gossip.errors import InvalidMessageError
from gossip.policy import WINDOW_S_MAX

SOURCES_MAX = 8
"""Of one kind on one host: two kinds and the GPUs' driver are `gossip.records.READINGS_MAX`."""
TCP_ADDRESS_EXAMPLE = "a multiaddr like /ip4/203.0.113.7/tcp/4001"

Require = Callable[[bool, str, str], None]
T = TypeVar("T")


class _File(Table, frozen=True):
    data_dir: str
    pool: PoolTable
    chain: ChainTable
    attestation: AttestationTable
    meter: MeterTable = MeterTable()
    engine: EngineTable | None = None
    cocoon: CocoonTable | None = None
    gpus: GpusTable = GpusTable()
    receipts: ReceiptsTable | None = None
    identity: IdentityTable = IdentityTable()
    wallet: WalletTable = WalletTable()
    p2p: P2pTable = P2pTable()
    web: WebTable = WebTable()
    log: LogTable = LogTable()


class _PoolFile(Table, frozen=True):
    """A file for `gpupool pool` alone, or an agent's, whose other tables are not looked into."""

    pool: PoolPlaceTable
    chain: ChainTable
    identity: IdentityTable = IdentityTable()
    wallet: WalletTable = WalletTable()
    data_dir: str = "."
    meter: Any = None
    engine: Any = None
    cocoon: Any = None
    gpus: Any = None
    receipts: Any = None
    attestation: Any = None
    p2p: Any = None
    web: Any = None
    log: Any = None


class PoolConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The checked settings of whoever deals with a pool; `path` is the file they came from."""

    path: Path
    data_dir: Path
    pool: PoolPlaceTable
    chain: ChainTable
    identity: IdentityTable
    wallet: WalletTable

    def resolve(self, name: str) -> Path:
        """A path of the file: absolute as it is, else relative to the file's folder."""
        return self.path.parent / Path(name).expanduser()

    @property
    def wallet_lock_file(self) -> Path:
        """Held while the wallet sends: by the agent, or by a command beside it."""
        return self.data_dir / "wallet.lock"


class Config(PoolConfig, frozen=True, kw_only=True):
    """The checked settings of an agent."""

    pool: PoolTable
    meter: MeterTable
    engine: EngineTable | None
    cocoon: CocoonTable | None
    gpus: GpusTable
    receipts: ReceiptsTable | None
    attestation: AttestationTable
    p2p: P2pTable
    web: WebTable
    log: LogTable

    @property
    def journal_file(self) -> Path:
        return self.data_dir / "journal.sqlite"

    @property
    def address_file(self) -> Path:
        """A cache of where peers are: it may be deleted."""
        return self.data_dir / "addresses"


def load_config(path: Path) -> Config:
    """Read a config file.

    Raises:
        ConfigError: missing, not TOML, or a key is unknown, missing, of a wrong type or out of range.
    """
    return parse_config(_read(path), path)


def load_pool_config(path: Path) -> PoolConfig:
    """Read what `gpupool pool` needs of a config file: an agent's, or one with [pool], [chain] and [wallet] alone.

    Raises as `load_config` does.
    """
    file = parse_toml(_read(path), path, _PoolFile)
    _require_reach(_requiring(path), file.pool, file.chain)
    return PoolConfig(
        path=path.absolute(),
        data_dir=path.absolute().parent / Path(file.data_dir).expanduser(),
        pool=file.pool,
        chain=file.chain,
        identity=file.identity,
        wallet=file.wallet,
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: missing; `gpupool init` writes a first one, --config names another") from error
    except PermissionError as error:
        raise ConfigError(f"{path}: {DENIED}") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: {not_toml(error)}") from error


def parse_toml(text: str, path: Path, form: type[T]) -> T:
    """Read TOML of this form strictly; `path` is named if it is something else.

    Raises:
        ConfigError: not TOML, or a key is unknown, missing or of a wrong type.
    """
    try:
        return msgspec.convert(tomllib.loads(text), form)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {explained(error, text, form)}") from error
    except (ValueError, RecursionError) as error:  # also a number of too many digits
        raise ConfigError(f"{path}: {not_toml(error)}") from error


def parse_config(text: str, path: Path) -> Config:
    """Read a config's text; `path` is where it stands, or shall stand. Raises as `load_config` does."""
    file = parse_toml(text, path, _File)
    _require_ranges(path, file)
    return Config(
        path=path.absolute(),
        data_dir=path.absolute().parent / Path(file.data_dir).expanduser(),
        **{name: getattr(file, name) for name in _File.__struct_fields__ if name != "data_dir"},
    )


def _requiring(path: Path) -> Require:
    def require(holds: bool, key: str, expectation: str) -> None:
        if not holds:
            raise ConfigError(f"{path}: {key}: expected {expectation}")

    return require


def _require_ranges(path: Path, file: _File) -> None:
    require = _requiring(path)
    _require_reach(require, file.pool, file.chain)
    _require_provider(path, file)
    _require_p2p(path, file.p2p, file.pool.global_id)
    require(0 <= file.web.port < 65536, "web.port", "a port, 0 to 65535 (0: any free one)")
    listen_address(f"{path}: web.", file.web.host, file.web.allowed_hosts)
    if file.receipts is not None:
        listen_address(f"{path}: receipts.", file.receipts.host, file.receipts.allowed_hosts)
    _require_sources(require, file)
    positive = {
        "chain.poll_interval_s": file.chain.poll_interval_s,
        "chain.roster_interval_s": file.chain.roster_interval_s,
        "p2p.sync_interval_s": file.p2p.sync_interval_s,
        "p2p.close_interval_s": file.p2p.close_interval_s,
        "p2p.address_interval_s": file.p2p.address_interval_s,
        "meter.sample_interval_s": file.meter.sample_interval_s,
    }
    for key, value in positive.items():
        require(0.1 <= value <= 86_400, key, "0.1 to 86400 seconds")
    # What this pool's policy allows is known where that is read (`agent.policies`).
    fits = 1 <= file.meter.window_s <= WINDOW_S_MAX // 2
    require(fits, "meter.window_s", "1 to half of the policy's work.window_max_s, in seconds")


def _require_sources(require: Require, file: _File) -> None:
    """What measures this host's work: at least one source of tokens."""
    require(file.engine is not None or file.cocoon is not None, "engine", "this table, or cocoon: what to measure")
    require(0 < file.meter.disagreement_max <= 1, "meter.disagreement_max", "a share above 0, at most 1")
    require(0.1 <= file.meter.samples_kept_days <= 365, "meter.samples_kept_days", "0.1 to 365 days")
    if file.engine is not None:
        urls = file.engine.urls
        require(0 < len(urls) <= SOURCES_MAX, "engine.url", f"1 to {SOURCES_MAX} URLs")
        require(all(map(is_http_url, urls)), "engine.url", "a URL like http://127.0.0.1:8000/metrics")
        require(len(set(urls)) == len(urls), "engine.url", "no engine twice: it would be counted twice")
    if file.cocoon is not None:
        workers, urls = file.cocoon.workers, file.cocoon.urls
        require(0 < len(workers) <= SOURCES_MAX, "cocoon.workers", f"1 to {SOURCES_MAX} numbers")
        require(len(set(workers)) == len(workers), "cocoon.workers", "no worker twice: it would be counted twice")
        require(all(0 <= number <= 255 for number in workers), "cocoon.workers", "numbers from 0 to 255")
        require(len(urls) in (0, len(workers)), "cocoon.urls", "one for each of cocoon.workers, or none")
        require(all(map(is_http_url, urls)), "cocoon.urls", "URLs like http://127.0.0.1:12000")
    if file.receipts is not None:
        require(0 <= file.receipts.port < 65536, "receipts.port", "a port, 0 to 65535 (0: any free one)")
        require(file.receipts.port == 0 or file.receipts.port != file.web.port, "receipts.port", "not web.port")


def _require_reach(require: Require, pool: PoolPlaceTable, chain: ChainTable) -> None:
    """What every user of the pool's chain needs."""
    network = pool.network
    is_network = network in NETWORKS if isinstance(network, str) else -(1 << 31) <= network < 1 << 31
    require(is_network, "pool.network", '"mainnet", "testnet" or a global id')
    try:
        require(pool.contract.workchain == 0, "pool.address", "an address in workchain 0")
    except InvalidValueError as error:
        require(False, "pool.address", f"an address in workchain 0 ({error})")
    require(bool(chain.liteservers or chain.global_config), "chain.liteservers", "at least one, or chain.global_config")
    for i, server in enumerate(chain.liteservers):
        require(bool(server.host), f"chain.liteservers[{i}].host", "a host name or address")
        require(0 < server.port < 65536, f"chain.liteservers[{i}].port", "a port, 1 to 65535")
        require(_is_base64_key(server.public_key), f"chain.liteservers[{i}].public_key", "32 bytes in base64")
    require(chain.trust_level in (1, 2), "chain.trust_level", "1 or 2")
    require(0.1 <= chain.timeout_s <= 9, "chain.timeout_s", "0.1 to 9 seconds")


def _require_provider(path: Path, file: _File) -> None:
    table, require = file.attestation, _requiring(path)
    if table.provider == "software":
        if file.pool.global_id in NETWORKS.values():
            # Whoever holds its root can prove anything.
            raise ConfigError(
                f"{path}: attestation.provider: the software platform counts on development networks only, not on "
                f'{file.pool.network}; "configfs" inside a TDX guest, "cocoon" on the host of one'
            )
        require(table.software_dir is not None, "attestation.software_dir", "the folder of the software platform")
        require(table.software_root_file is not None, "attestation.software_root_file", "its root certificate")
    if table.provider == "cocoon":
        address = table.guest_address
        require(address is not None and is_host_port(address), "attestation.guest_address", "HOST:PORT")
    if table.software_root_file is not None and file.pool.global_id in NETWORKS.values():
        require(False, "attestation.software_root_file", "nothing on a public network: only Intel's root counts there")
    if table.pccs_url is not None:
        is_https = table.pccs_url.startswith("https://") and is_http_url(table.pccs_url)
        require(is_https, "attestation.pccs_url", "a URL like https://pccs.example:8081")
    require(table.pccs_ca_file is None or table.pccs_url is not None, "attestation.pccs_ca_file", "pccs_url besides")


def _require_p2p(path: Path, table: P2pTable, network: int) -> None:
    require = _requiring(path)
    for i, text in enumerate(table.listen):
        key = f"p2p.listen[{i}]"
        address = _require_address(path, key, text)
        # libp2p would listen on all interfaces, without a word.
        is_ip = address.kind in ("ip4", "ip6") and address.peer is None
        _require_value(path, is_ip, key, "an IP address of this host, without /p2p/: /ip4/0.0.0.0/tcp/4001", text)
    require(not table.announce or bool(table.listen), "p2p.announce", "nothing while p2p.listen is empty")
    require(len(table.announce) <= ADDRESSES_MAX, "p2p.announce", f"at most {ADDRESSES_MAX} addresses")
    for i, text in enumerate(table.announce):
        address = _require_address(path, f"p2p.announce[{i}]", text)
        try:
            require_dialable(address, network)
        except InvalidMessageError as error:
            expectation = f"an address with a port, at which others reach this host ({_reason(error)})"
            _require_value(path, False, f"p2p.announce[{i}]", expectation, text)
    keys: dict[str, int] = {}
    for i, peer in enumerate(table.peers):
        _require_peer(path, f"p2p.peers[{i}]", peer, network)
        first = keys.setdefault(peer.node_key.lower(), i)
        expectation = f"another key than p2p.peers[{first}]: all addresses of a key stand in one table"
        _require_value(path, first == i, f"p2p.peers[{i}].node_key", expectation, peer.node_key)


def _require_peer(path: Path, key: str, peer: PeerTable, network: int) -> None:
    _require_value(path, _is_hex_key(peer.node_key), f"{key}.node_key", "64 hex digits", peer.node_key)
    fits = 0 < len(peer.addresses) <= ADDRESSES_MAX
    expectation = f"1 to {ADDRESSES_MAX} addresses, not {len(peer.addresses)}; whoever has none here is found by others"
    _requiring(path)(fits, f"{key}.addresses", expectation)
    for k, text in enumerate(peer.addresses):
        address = _require_address(path, f"{key}.addresses[{k}]", text)
        try:
            require_leads_to(address, bytes.fromhex(peer.node_key), network)
        except InvalidMessageError as error:
            expectation = f"an address at which this key is dialled ({_reason(error)})"
            _require_value(path, False, f"{key}.addresses[{k}]", expectation, text)


def _require_address(path: Path, key: str, text: str) -> TcpAddress:
    try:
        return parse_tcp_address(text)
    except InvalidMessageError as error:
        expectation = f"{TCP_ADDRESS_EXAMPLE} ({_reason(error)})"
        raise ConfigError(f"{path}: {key}: expected {expectation}, not {text[:300]!r}") from error


def _reason(error: InvalidMessageError) -> str:
    return str(error).removeprefix("address: ")


def _require_value(path: Path, holds: bool, key: str, expectation: str, value: str) -> None:
    """As `Require`, and the message shows what stands there: for what is no secret."""
    _requiring(path)(holds, key, f"{expectation}, not {value[:300]!r}")


def is_tcp_address(text: str) -> bool:
    """Whether this is a multiaddr that the transport can use: an address or name, TCP, perhaps a peer id."""
    try:
        parse_tcp_address(text)
    except InvalidMessageError:
        return False
    return True


def is_host_port(text: str) -> bool:
    """Whether this is HOST:PORT; an IPv6 host stands in brackets."""
    try:
        place = urlsplit(f"//{text}")
        return bool(place.hostname) and bool(place.port) and place.netloc == text and "@" not in text
    except ValueError:
        return False


def is_http_url(text: str) -> bool:
    """Whether an engine, or a service, can be asked there."""
    try:
        url = urlsplit(text)
        return url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        return False  # brackets that do not close, a port out of range


def _is_base64_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == 32
    except (binascii.Error, ValueError):
        return False


def _is_hex_key(text: str) -> bool:
    return re.fullmatch("[0-9a-fA-F]{64}", text) is not None
