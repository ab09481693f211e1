"""Tell systemd about this service: start, readiness, status line, watchdog, stopping (`sd_notify`).

A no-op where nobody listens: without NOTIFY_SOCKET nothing is sent. A message that cannot be delivered is
logged; the service does not stop because its supervisor cannot hear it.

Source: sd_notify(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

import structlog

STATUS_CHARS_MAX = 400

_log = structlog.get_logger(__name__)


class Notifier:
    """Datagrams to the socket that systemd named; see `from_environment`."""

    def __init__(self, address: str | None, watchdog_s: float | None = None) -> None:
        self._address = address
        self.watchdog_s = watchdog_s
        """Seconds within which `watchdog` must be called again and again; None: nobody watches."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Notifier:
        """Read NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID; what is not understood counts as absent."""
        address = environment.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return cls(None)
        microseconds = environment.get("WATCHDOG_USEC", "")
        mine = environment.get("WATCHDOG_PID", "") in ("", str(os.getpid()))
        watched = mine and microseconds.isdecimal() and int(microseconds) > 0
        return cls(address, int(microseconds) / 1e6 if watched else None)

    def starting(self, status: str, within_s: int) -> None:
        """The start goes on; the next message comes within so many seconds (> 0), even if that is more than usual."""
        self._send(f"STATUS={status}", f"EXTEND_TIMEOUT_USEC={within_s * 1_000_000}")

    def ready(self, status: str) -> None:
        """The service serves from now on."""
        self._send("READY=1", f"STATUS={status}")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={text}")

    def watchdog(self) -> None:
        """The service still does its work."""
        self._send("WATCHDOG=1")

    def stopping(self, status: str) -> None:
        """The service has begun to stop."""
        self._send("STOPPING=1", f"STATUS={status}")

    def _send(self, *assignments: str) -> None:
        if self._address is None:
            return
        # A leading @ stands for the zero byte of Linux's abstract socket names.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        message = "\n".join(" ".join(text.split())[:STATUS_CHARS_MAX] for text in assignments)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto(message.encode(errors="replace"), address)
        except OSError as error:
            _log.warning("systemd not notified", address=self._address, error=str(error))
