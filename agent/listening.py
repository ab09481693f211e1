"""Where the agent's own HTTP listeners may listen, and by which names they may be asked.

One rule for the settings, when they are read (`agent.config`), and for the socket, when it is opened (`agent.web`):

1. `host` is an IP address: of a name nobody knows which of its addresses is meant.
2. Another one than loopback needs `allowed_hosts`, so that it is never an accident.
3. `allowed_hosts` are names or addresses as they stand in a Host header, without port or brackets: another text would
   never match, and whoever asks would be refused for ever.

Source: RFC 9110, section 7.2 (Host).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

from agent.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,253}")


def listen_address(where: str, host: str, allowed_hosts: Sequence[str]) -> IPv4Address | IPv6Address:
    """The address to listen on; `where` stands before the keys in a message: "web.", or nothing.

    Raises:
        ConfigError: `host` is no IP address, or not loopback without `allowed_hosts`; or one of these is no name.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        expectation = "an IP address of this host like 127.0.0.1"
        raise ConfigError(f"{where}host: expected {expectation}, not {host!r:.80}") from None
    if not address.is_loopback and not allowed_hosts:
        raise ConfigError(
            f"{where}host: {address} is not loopback; allowed_hosts in the same table has to name the names or "
            "addresses by which others ask there"
        )
    for name in allowed_hosts:
        if not _is_name(name):
            expectation = "names or addresses without port, as gpu7.example"
            raise ConfigError(f"{where}allowed_hosts: expected {expectation}, not {name!r:.80}")
    return address


def _is_name(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return _NAME.fullmatch(text) is not None
    return True
