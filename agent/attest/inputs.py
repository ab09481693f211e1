"""The files and values that `gpupool attest` is given: quotes, collateral, root certificates, times, report data.

Decides who is at fault. A file that cannot be read or written, and a root or a number that is none, are wrong usage
(`ConfigError`). What stands in a quote or in collateral is untrusted: every byte is taken as it is, within
bounds, and refused later with an error of its own.

A binary may come as it is, in hex or in base64: text that is nothing but digits of one of them is decoded.
"""

from __future__ import annotations

import base64
import math
import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from agent.config import Config, load_config
from agent.errors import ConfigError
from attestation.certs import parse_certificate, split_pem
from attestation.errors import RootRefusedError
from attestation.roots import INTEL_ROOT

QUOTE_FILE_BYTES_MAX = 64 * 1024
"""A quote has at most 16 KiB; in hex, with line ends, that is some 33."""
REPORT_DATA_BYTES = 64
ROOT_BYTES_MAX = 16 * 1024
STDIN = Path("-")

_TIME_S_MAX = (1 << 32) - 1
_DIGITS = re.compile("[0-9A-Fa-f]+")
_HEX = re.compile(rb"(?:0[xX])?((?:[0-9A-Fa-f]{2})+)")
_BASE64 = re.compile(rb"(?:[0-9A-Za-z+/]{4})*(?:[0-9A-Za-z+/]{2}==|[0-9A-Za-z+/]{3}=)?")


def read_bytes(path: Path, most: int) -> bytes:
    """The bytes of a file, or of standard input for "-": of a longer one, one byte more than `most`.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        if path == STDIN:
            if sys.stdin is None:
                raise ConfigError("-: cannot be read: standard input is closed")
            return sys.stdin.buffer.read(most + 1)
        with path.open("rb") as file:
            return file.read(most + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {why(error)}") from error


def why(error: OSError) -> str:
    """What the system says, and what helps where it is about rights."""
    hint = "; run this as a user who may, or change the file's owner" if isinstance(error, PermissionError) else ""
    return f"{error.strerror}{hint}"


def read_binary(path: Path, most: int) -> bytes:
    """The bytes that a file holds as they are, in hex or in base64. Raises as `read_bytes` does."""
    return decode_text(read_bytes(path, most))


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file anew.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        path.write_bytes(data)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {why(error)}") from error


def decode_text(data: bytes) -> bytes:
    """`data`, decoded if all of it is hex or base64; white space in it does not count."""
    text = b"".join(data.split())
    if hexadecimal := _HEX.fullmatch(text):
        return bytes.fromhex(hexadecimal[1].decode("ascii"))
    return base64.b64decode(text) if text and _BASE64.fullmatch(text) else data


def read_root(path: Path | None) -> bytes:
    """DER of the root certificate in a file (DER or PEM), Intel's without one.

    Raises:
        ConfigError: it cannot be read, or is no certificate.
    """
    if path is None:
        return INTEL_ROOT
    raw = read_bytes(path, ROOT_BYTES_MAX)
    try:
        der = split_pem(raw, 1, RootRefusedError)[0] if raw.startswith(b"-----") else raw
        return parse_certificate(der, RootRefusedError).der
    except RootRefusedError as error:
        raise ConfigError(f"--root {path}: not a root certificate in DER or PEM") from error


def parse_time(text: str | None) -> int:
    """A time in Unix seconds, now without one; ISO 8601 without a zone is UTC.

    Raises:
        ConfigError: neither a whole number of 32 bits, nor a moment of that range.
    """
    if text is None:
        return now_s()
    try:
        time_s = int(text) if re.fullmatch("[0-9]{1,10}", text) else _iso_seconds(text)
    except (ValueError, OverflowError) as error:
        raise _time_error(text) from error
    if not 0 <= time_s <= _TIME_S_MAX:
        raise _time_error(text)
    return time_s


def _iso_seconds(text: str) -> int:
    given = datetime.fromisoformat(text)
    return math.floor((given if given.tzinfo is not None else given.replace(tzinfo=UTC)).timestamp())


def _time_error(text: str) -> ConfigError:
    return ConfigError(f"--at {text}: expected Unix seconds, 0 to {_TIME_S_MAX}, or a time like 2026-11-21T08:00:00Z")


def settings(path: Path, instead: str) -> Config:
    """The settings in a file; `instead` names the options that do without.

    Raises:
        ConfigError: it cannot be read, or is none.
    """
    try:
        return load_config(path)
    except ConfigError as error:
        raise ConfigError(f"{error}; or give {instead}") from error


def now_s() -> int:
    """The time of this host, in Unix seconds."""
    return int(time.time())


def parse_hex(option: str, text: str | None, length: int) -> bytes | None:
    """`length` bytes from hex digits, None without any.

    Raises:
        ConfigError: it has another form.
    """
    if text is None:
        return None
    if _DIGITS.fullmatch(text) is None or len(text) != 2 * length:
        raise ConfigError(f"{option} {text}: expected {2 * length} hex digits")
    return bytes.fromhex(text)
