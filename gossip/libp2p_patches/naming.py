"""Dialling by name: names are looked up the way everything else on this host looks them up.

Decides which addresses a DNS name in a multiaddr stands for. Untrusted: the name, which a peer announces, and what
its servers say. Rules:
1. A name goes through the resolver of the host (hosts file, name services), anew for each dial.
2. Lookups have threads of their own: names that are slow to resolve hold up other names, and nothing else.
3. At most `PLACES_MAX` addresses are dialled, one after another, in the resolver's order; they share `PLACES_S`.
4. On a public network no address is dialled that points to this host, or to nobody in particular: what may not stand
   in an address record (`gossip.addresses`) is not reached through a name in one either.

Source: multiaddr specification (dns, dns4, dns6); getaddrinfo(3); py-libp2p 0.8.1, whose class this is.
"""

from __future__ import annotations

import socket
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import trio
from libp2p.transport.exceptions import OpenConnectionError
from libp2p.transport.tcp.tcp import TCP
from multiaddr import Multiaddr

from gossip.addresses import is_special

PLACES_MAX = 4
"""Addresses of a name that a dial tries."""
PLACES_S = 8.0
"""For the connections to all addresses of a name; what is left of the dial's time is for the handshake."""
LOOKUPS_MAX = 16
"""Lookups at once. One that is given up holds its place until the resolver gives up, too."""

_FAMILIES = {"dns": socket.AF_UNSPEC, "dns4": socket.AF_INET, "dns6": socket.AF_INET6}


class NamingTcp(TCP):  # type: ignore[misc]
    """TCP that leaves names to the host. `is_public`: the pool is on a public network (rule 4)."""

    def __init__(self, *, is_public: bool) -> None:
        super().__init__()
        self._is_public = is_public
        self._lookups = trio.CapacityLimiter(LOOKUPS_MAX)

    async def dial(self, maddr: Multiaddr) -> Any:
        """Open a connection.

        Raises:
            OpenConnectionError: the name is unknown or points to nowhere, or none of its addresses answers.
        """
        # Seen: the library asks DNS servers itself, so that `localhost` and the hosts file were unknown.
        kind = next(iter(maddr.protocols())).name
        if kind not in _FAMILIES:
            return await super().dial(maddr)
        name, port = str(maddr.value_for_protocol(kind)), int(maddr.value_for_protocol("tcp"))
        places = self._dialable(name, await self._look_up(name, kind))
        failure: OpenConnectionError | None = None
        for place in places:
            with trio.move_on_after(PLACES_S / len(places)):
                try:
                    return await super().dial(Multiaddr(f"/ip{place.version}/{place}/tcp/{port}"))
                except OpenConnectionError as error:
                    failure = error
        raise OpenConnectionError(f"{name}: no connection to {', '.join(map(str, places))}") from failure

    async def _look_up(self, name: str, kind: str) -> list[IPv4Address | IPv6Address]:
        ask = partial(socket.getaddrinfo, name, None, _FAMILIES[kind], socket.SOCK_STREAM)
        try:
            found = await trio.to_thread.run_sync(  # type: ignore[call-arg] # trio-typing knows an older trio
                ask, abandon_on_cancel=True, limiter=self._lookups
            )
        except (OSError, UnicodeError) as error:  # UnicodeError: a label is empty or too long
            raise OpenConnectionError(f"{name}: name unknown: {error}") from error
        texts = dict.fromkeys(str(address[0]) for *_, address in found)
        return [ip_address(text) for text in texts if "%" not in text]  # of one link only: no multiaddr

    def _dialable(self, name: str, found: list[IPv4Address | IPv6Address]) -> list[IPv4Address | IPv6Address]:
        places = [place for place in found if not (self._is_public and is_special(place))][:PLACES_MAX]
        if not places:
            pointing = ", ".join(map(str, found[:PLACES_MAX])) or "nothing that can be dialled"
            raise OpenConnectionError(f"{name}: points to {pointing}: on a public network not dialled")
        return places
