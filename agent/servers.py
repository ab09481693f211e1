"""Which liteservers are asked: those that the settings name, and those of TON's global config.

Decides nothing about trust: whatever a server answers is proven or refused by the chain client. A public
network's global config (`global.config.json`) is downloaded by the operator, from a source that the operator
trusts; this reads the file, strictly where it is used and not at all elsewhere.

Untrusted input: the file, bounded in bytes and servers.
Source: TON documentation, "Network configs" (`liteservers`: `ip` as a signed 32-bit integer, `port`, `id.key`).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path

import msgspec

from agent.config import PoolConfig
from agent.errors import ConfigError
from contracts.chain_values import LiteServer

FILE_BYTES_MAX = 1 << 20
SERVERS_MAX = 64
"""More are left out: one that answers is enough."""


class _Key(msgspec.Struct, frozen=True):
    key: str


class _Server(msgspec.Struct, frozen=True):
    ip: int
    port: int
    id: _Key


class _GlobalConfig(msgspec.Struct, frozen=True):
    liteservers: tuple[_Server, ...]


def config_servers(config: PoolConfig) -> list[LiteServer]:
    """The liteservers of a config: its own first, then those of the global config that it names.

    Raises:
        ConfigError: the global config cannot be read, or is none.
    """
    table = config.chain
    own = [LiteServer(host=s.host, port=s.port, public_key=s.key) for s in table.liteservers]
    if table.global_config is None:
        return own
    return own + read_global_config(config.resolve(table.global_config))


def typed_servers(servers: Sequence[tuple[str, int, str]]) -> list[LiteServer]:
    """Liteservers from (host, port, base64 key)."""
    return [LiteServer(host=host, port=port, public_key=base64.b64decode(key)) for host, port, key in servers]


def read_global_config(path: Path) -> list[LiteServer]:
    """The first `SERVERS_MAX` liteservers of a global config file.

    Raises:
        ConfigError: it cannot be read, is too large or malformed, or names none.
    """
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; download the network's global config") from error
    if len(content) > FILE_BYTES_MAX:
        raise ConfigError(f"{path}: longer than {FILE_BYTES_MAX} bytes; expected a global config of TON")
    try:
        named = msgspec.json.decode(content, type=_GlobalConfig).liteservers
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: expected a global config of TON: {error}") from error
    if not named:
        raise ConfigError(f"{path}: names no liteservers")
    return [_server(path, i, server) for i, server in enumerate(named[:SERVERS_MAX])]


def _server(path: Path, i: int, server: _Server) -> LiteServer:
    where = f"{path}: liteservers[{i}]"
    if not -(1 << 31) <= server.ip < 1 << 32:
        raise ConfigError(f"{where}.ip: expected a 32-bit integer")
    if not 0 < server.port < 65536:
        raise ConfigError(f"{where}.port: expected a port, 1 to 65535")
    try:
        key = base64.b64decode(server.id.key, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 32:
        raise ConfigError(f"{where}.id.key: expected 32 bytes in base64")
    return LiteServer(host=str(IPv4Address(server.ip & 0xFFFFFFFF)), port=server.port, public_key=key)
