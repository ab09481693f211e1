"""Reads what a user typed: amounts, networks, liteservers, peers, files. Each is a value or one line that says why not.

Decides whether an argument is well-formed; whether it makes sense is for the command. Paths are relative to
where the command was typed. Amounts are read as decimal digits, never through a float.
"""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path

from agent.config import TCP_ADDRESS_EXAMPLE, is_tcp_address
from agent.errors import ConfigError
from agent.tables import NETWORKS
from contracts.errors import InvalidValueError
from contracts.model import NANO, Address
from gossip.errors import InvalidPolicyError
from gossip.policy import PoolPolicy, parse_policy

_TON = re.compile(r"([0-9]{1,10})(?:\.([0-9]{1,9}))?")
_LITESERVER = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]\s]+)):([0-9]{1,5}):(\S+)")
_PEER = re.compile(r"([0-9A-Fa-f]{64})@(\S+)")


def parse_ton(option: str, text: str) -> int:
    """An amount of TON, at least a nanoTON and less than 10^10 TON, in nanoTON.

    Raises:
        ConfigError: it is not a plain decimal number above 0 with at most 9 places.
    """
    found = _TON.fullmatch(text)
    nanoton = int(found[1]) * NANO + int((found[2] or "").ljust(9, "0")) if found else 0
    if nanoton == 0:
        raise ConfigError(f"{option} {text}: expected an amount of TON above 0 with at most 9 decimal places, like 1.5")
    return nanoton


def parse_network(text: str) -> str | int:
    """A network as it stands in a config: "mainnet", "testnet" or a global id (int32).

    Raises:
        ConfigError: it is neither.
    """
    if text in NETWORKS:
        return text
    if re.fullmatch("-?[0-9]{1,10}", text) and -(1 << 31) <= int(text) < 1 << 31:
        return int(text)
    raise ConfigError(f'--network {text}: expected "mainnet", "testnet" or a global id (a whole number of 32 bits)')


def global_id(network: str | int) -> int:
    """The global id of a network that `parse_network` read."""
    return NETWORKS[network] if isinstance(network, str) else network


def parse_liteserver(text: str) -> tuple[str, int, str]:
    """HOST:PORT:KEY as (host, port, base64 of 32 bytes); an IPv6 host stands in brackets.

    Raises:
        ConfigError: it has another form.
    """
    found = _LITESERVER.fullmatch(text)
    if found and 0 < int(found[3]) < 65536 and _is_key(found[4]):
        return found[1] or found[2], int(found[3]), found[4]
    raise ConfigError(f"--liteserver {text}: expected HOST:PORT:KEY, the key being 32 bytes in base64")


def parse_peer(text: str) -> tuple[str, str]:
    """NODEKEY@MULTIADDR as (64 hex digits, multiaddr).

    Raises:
        ConfigError: it has another form.
    """
    found = _PEER.fullmatch(text)
    if found and is_tcp_address(found[2]):
        return found[1].lower(), found[2]
    raise ConfigError(f"--peer {text}: expected NODEKEY@MULTIADDR, 64 hex digits and {TCP_ADDRESS_EXAMPLE}")


def parse_address(option: str, text: str) -> Address:
    """An address on TON, raw or friendly.

    Raises:
        ConfigError: it is neither.
    """
    try:
        return Address.parse(text)
    except InvalidValueError as error:
        raise ConfigError(f"{option}: {error}") from error


def existing(option: str, path: Path, *, folder: bool = False) -> Path:
    """The absolute path of a file (or folder) that is there.

    Raises:
        ConfigError: it is not.
    """
    if not (path.is_dir() if folder else path.is_file()):
        raise ConfigError(f"{option} {path}: no such {'folder' if folder else 'file'}")
    return path.absolute()


def read_policy(path: Path) -> PoolPolicy:
    """The pool's policy in this file.

    Raises:
        ConfigError: it cannot be read, or is no policy.
    """
    try:
        return parse_policy(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, InvalidPolicyError) as error:
        raise ConfigError(f"{path}: {error}") from error


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == 32
    except (binascii.Error, ValueError):
        return False


def parse_hash(option: str, text: str) -> bytes:
    """A hash or a node key: 32 bytes from 64 hex digits.

    Raises:
        ConfigError: it has another form.
    """
    if re.fullmatch("[0-9A-Fa-f]{64}", text) is None:
        raise ConfigError(f"{option} {text}: expected 64 hex digits")
    return bytes.fromhex(text)
