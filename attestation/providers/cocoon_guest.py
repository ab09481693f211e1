"""Quotes of a Cocoon worker: a TDX guest of this host, seen from the host, where the agent runs.

The worker's TLS port presents a certificate that carries its quote (`attestation.guest_certificate`). One
connection gives both the quote and the handshake that ties it to the challenge (`attestation.handshake`, which
says what that proves and what not). Nothing but the handshake is exchanged.

What answers at the port is untrusted: bounded in time and bytes, and what comes of it is verified here as the
peers will verify it. `ssl` speaks TLS and checks no certificate: there is no authority to check it by.

A guest that asks for a client certificate gets none and hangs up later; by then its signature is here.

Source: cocoon.org/docs/ra-tls; TelegramMessenger/cocoon, tee/cocoon/tdx.cpp (create_ssl_ctx).
"""

from __future__ import annotations

import ssl
import tempfile
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import trio

from attestation.errors import (
    ConfigurationError,
    GuestConnectError,
    GuestProofOfWorkError,
    GuestProtocolError,
    GuestTimeoutError,
    GuestUnavailableError,
)
from attestation.handshake import server_name, verify_handshake
from attestation.providers import cocoon_pow
from attestation.providers.tls_records import recover_messages
from attestation.types import ProvidedQuote

TIMEOUT_S = 30.0
RECEIVED_BYTES_MAX = 64 * 1024
"""More than the longest handshake that is evidence (56 KiB), for the framing of its records."""

_CHUNK_BYTES = 8192
_SECRET = "SERVER_HANDSHAKE_TRAFFIC_SECRET"  # noqa: S105  (its name)


@dataclass(frozen=True, slots=True)
class CocoonGuest:
    """The `QuoteProvider` for the worker at `host`:`port`.

    `timeout_s` bounds one quote. `proof_of_work`: whether the port asks for one first, as Cocoon's router does.
    """

    host: str
    port: int
    _: KW_ONLY
    timeout_s: float = TIMEOUT_S
    proof_of_work: bool = True

    async def quote(self, challenge: bytes) -> ProvidedQuote:
        """Connect, shake hands for `challenge` (64 bytes), and return the guest's quote with the handshake.

        Cancellation closes the connection and leaves nothing behind.

        Raises:
            GuestUnavailableError: no handshake came about (refused, late, another protocol); it may work later.
            InvalidQuoteError: it did, and what the guest presents would be refused by everybody.
        """
        try:
            with trio.fail_after(self.timeout_s):
                messages = await self._talk(server_name(challenge))
        except trio.TooSlowError as error:
            raise GuestTimeoutError(f"guest {self._address}: {self._late}") from error
        except trio.BrokenResourceError as error:
            raise GuestConnectError(f"guest {self._address}: the connection broke") from error
        except GuestUnavailableError as error:
            raise type(error)(f"guest {self._address}: {error}") from error
        return ProvidedQuote(quote=verify_handshake(messages, challenge).quote, handshake=messages)

    @property
    def _address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def _late(self) -> str:
        late = f"no handshake within {self.timeout_s:g} s"
        if not self.proof_of_work:
            return late
        # A port that asks for no work waits for a hello, as this side waits for its question.
        return (
            f"{late}; a port that asks for no proof of work needs --no-work, or attestation.guest_asks_for_work = false"
        )

    async def _talk(self, name: str) -> bytes:
        try:
            stream = await trio.open_tcp_stream(self.host, self.port)
        except (OSError, UnicodeError) as error:
            raise GuestConnectError(str(error)) from error
        async with stream:
            if self.proof_of_work:
                await _work(stream)
            return await shake_hands(stream, name)


async def shake_hands(stream: trio.abc.Stream, name: str) -> bytes:
    """Make a TLS 1.3 handshake with server name `name`; return its messages up to CertificateVerify, in plain.

    They are not verified. The stream is left with a TLS connection on it that is closed, or broken. The file that
    held the connection's secret is gone afterwards, on cancellation too.

    Raises:
        GuestProtocolError: no TLS 1.3, too many bytes, or a retry request.
        GuestConnectError: the stream ended early.
        ConfigurationError: no temporary file can be made.
    """
    # The library gives the secret to a file only; it is that of a connection that transports nothing.
    try:
        with tempfile.TemporaryDirectory(prefix="gpupool-") as private:
            keylog = Path(private) / "keylog"
            keylog.touch(mode=0o600)
            connection = _Connection(stream, _context(keylog), name)
            await connection.shake_hands()
            await connection.close()
            return recover_messages(bytes(connection.sent), bytes(connection.received), _read_secret(keylog))
    except OSError as error:
        raise ConfigurationError(f"temporary file for a handshake: {error}") from error


def _context(keylog: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.keylog_filename = str(keylog)
    return context


def _read_secret(keylog: Path) -> bytes:
    for line in keylog.read_text().splitlines():
        label, _, secret = line.partition(" ")
        if label == _SECRET:
            return bytes.fromhex(secret.split()[-1])
    raise GuestProtocolError("the handshake ended before its keys were agreed on")


class _Connection:
    """TLS over a stream, with the bytes of both directions kept."""

    def __init__(self, stream: trio.abc.Stream, context: ssl.SSLContext, name: str) -> None:
        self._stream = stream
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self.sent = bytearray()
        self.received = bytearray()

    async def shake_hands(self) -> None:
        while not self._is_done():
            await self._flush()
            await self._receive()

    async def close(self) -> None:
        # The other side's goodbye is not waited for, nor what it may have sent instead.
        with suppress(ssl.SSLError):
            self._tls.unwrap()
        await self._flush()

    def _is_done(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise GuestProtocolError(str(error)) from error
        return True

    async def _flush(self) -> None:
        data = self._outgoing.read()
        self.sent += data
        if data:
            await self._stream.send_all(data)

    async def _receive(self) -> None:
        chunk = await self._stream.receive_some(_CHUNK_BYTES)
        if not chunk:
            raise GuestConnectError("closed the connection within the handshake")
        self.received += chunk
        if len(self.received) > RECEIVED_BYTES_MAX:
            raise GuestProtocolError(f"more than {RECEIVED_BYTES_MAX} bytes of handshake")
        self._incoming.write(chunk)


async def _work(stream: trio.abc.Stream) -> None:
    """Do the proof of work that the router asks for; cancellation ends it after the round under way."""
    raw = b""
    while len(raw) < cocoon_pow.CHALLENGE_BYTES:
        chunk = await stream.receive_some(cocoon_pow.CHALLENGE_BYTES - len(raw))
        if not chunk:
            raise GuestProofOfWorkError("closed the connection, and asked for no proof of work")
        raw += chunk
    salt, difficulty = cocoon_pow.parse_challenge(raw)
    for nonces in cocoon_pow.rounds():
        answer = await trio.to_thread.run_sync(cocoon_pow.solve, salt, difficulty, nonces)
        if answer is not None:
            await stream.send_all(answer)
            return
