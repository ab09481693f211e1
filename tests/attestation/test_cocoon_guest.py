"""A Cocoon guest's TLS port: what is believed, and how long it is waited for."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import struct
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL
from ra_tls_guest import (
    Guest,
    ask_for_work,
    make_guest,
    serve,
    server_context,
)

from attestation.errors import (
    ConfigurationError,
    EvidenceMalformedError,
    GuestConnectError,
    GuestProofOfWorkError,
    GuestProtocolError,
    GuestReportDataError,
    GuestTimeoutError,
)
from attestation.handshake import read_cipher_suite, verify_handshake
from attestation.providers import cocoon_guest, cocoon_pow
from attestation.providers.cocoon_guest import RECEIVED_BYTES_MAX, CocoonGuest
from attestation.providers.tls_records import _SUITES, _expand, _records, recover_messages

CHALLENGE = bytes(range(64, 128))

Handler = Callable[[trio.SocketStream], Awaitable[object]]


@pytest.fixture(scope="session")
def guest(forge: Any) -> Guest:
    return make_guest(lambda data: forge.quote(forge.signed(report_data=data)))


@asynccontextmanager
async def listening(handler: Handler, **settings: Any) -> AsyncIterator[CocoonGuest]:
    """A port on the loopback where `handler` answers, and the provider for it."""
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, handler, listeners)
        port = listeners[0].socket.getsockname()[1]
        yield CocoonGuest("127.0.0.1", port, **({"proof_of_work": False} | settings))
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("asks_for_certificate", [False, True])
async def test_a_quote_and_its_handshake(guest: Guest, asks_for_certificate: bool) -> None:
    context = server_context(guest, asks_for_certificate=asks_for_certificate)
    async with listening(lambda stream: serve(stream, context)) as provider:
        provided = await provider.quote(CHALLENGE)
        again = await provider.quote(CHALLENGE)
    assert provided.handshake is not None
    assert verify_handshake(provided.handshake, CHALLENGE).quote == provided.quote == again.quote
    assert provided.handshake != again.handshake


async def test_behind_a_proof_of_work(guest: Guest) -> None:
    answers = []

    async def router(stream: trio.SocketStream) -> None:
        answers.append(await ask_for_work(stream, 12))
        await serve(stream, server_context(guest))

    async with listening(router, proof_of_work=True) as provider:
        assert (await provider.quote(CHALLENGE)).quote in guest.certificate
    [(salt, answer)] = answers
    magic, nonce = struct.unpack("<Iq", answer)
    digest = hashlib.sha256(salt + struct.pack("<q", nonce)).digest()
    assert magic == 0x01827319
    assert int.from_bytes(digest[:8], "little") < 1 << 52


@pytest.mark.parametrize(("difficulty", "magic"), [(23, 0x418E1291), (-1, 0x418E1291), (4, 0x418E1292)])
async def test_a_proof_of_work_that_is_not_done(difficulty: int, magic: int) -> None:
    async def router(stream: trio.SocketStream) -> None:
        await ask_for_work(stream, difficulty, magic=magic)

    async with listening(router, proof_of_work=True) as provider:
        with pytest.raises(GuestProofOfWorkError):
            await provider.quote(CHALLENGE)


async def test_no_proof_of_work_asked_for() -> None:
    async with listening(lambda stream: stream.send_all(b"hello"), proof_of_work=True) as provider:
        with pytest.raises(GuestProofOfWorkError, match="closed"):
            await provider.quote(CHALLENGE)


async def test_work_that_takes_longer_than_there_is_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cocoon_pow, "solve", lambda salt, difficulty, nonces: None)

    async def router(stream: trio.SocketStream) -> None:
        await ask_for_work(stream, cocoon_pow.DIFFICULTY_MAX)

    async with listening(router, proof_of_work=True, timeout_s=0.05) as provider:
        with pytest.raises(GuestTimeoutError):
            await provider.quote(CHALLENGE)


async def test_the_answer_to_a_hard_challenge_is_not_in_every_round() -> None:
    assert cocoon_pow.solve(bytes(16), 40, range(100)) is None
    first, second, *_ = (r for _, r in zip(range(2), cocoon_pow.rounds(), strict=False))
    assert first.stop == second.start


async def silence(stream: trio.SocketStream) -> None:
    await trio.sleep_forever()


async def test_a_guest_that_waits_for_a_hello_may_be_asked_for_no_work() -> None:
    async with listening(silence, proof_of_work=True, timeout_s=0.05) as provider:
        with pytest.raises(GuestTimeoutError, match=r"--no-work, or attestation\.guest_asks_for_work = false"):
            await provider.quote(CHALLENGE)


async def test_a_silent_guest_is_left_in_time() -> None:
    async with listening(silence, timeout_s=0.05) as provider:
        with pytest.raises(GuestTimeoutError, match=r"0\.05 s$"):
            await provider.quote(CHALLENGE)


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x16\x03\x03\x00\x04\x01\x00\x00\x00", b"\0" * 100]
)
async def test_garbage(answer: bytes) -> None:
    async def handler(stream: trio.SocketStream) -> None:
        await stream.send_all(answer)
        await stream.receive_some()
        await trio.sleep_forever()

    async with listening(handler) as provider:
        with pytest.raises(GuestProtocolError, match=rf"guest 127\.0\.0\.1:{provider.port}: \[SSL"):
            await provider.quote(CHALLENGE)


async def test_nobody_listens() -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    for host in ("127.0.0.1", "a..b"):
        with pytest.raises(GuestConnectError, match=host):
            await CocoonGuest(host, port).quote(CHALLENGE)


async def test_it_hangs_up() -> None:
    async with listening(lambda stream: stream.aclose()) as provider:
        with pytest.raises(GuestConnectError):
            await provider.quote(CHALLENGE)


async def test_it_resets_the_connection() -> None:
    async def handler(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async with listening(handler) as provider:
        with pytest.raises(GuestConnectError, match="broke"):
            await provider.quote(CHALLENGE)


@pytest.mark.parametrize("settings", [{"curve": ec.SECP521R1()}, {"version": SSL.TLS1_2_VERSION}])
async def test_another_tls(guest: Guest, settings: dict[str, Any]) -> None:
    context = server_context(guest, **settings)
    async with listening(lambda stream: serve(stream, context)) as provider:
        with pytest.raises(GuestProtocolError):
            await provider.quote(CHALLENGE)


async def test_an_endless_certificate(forge: Any) -> None:
    quote = forge.quote(qe_auth_data=bytes(60_000))
    endless = make_guest(lambda data: quote + bytes(RECEIVED_BYTES_MAX - len(quote)))
    async with listening(lambda stream: serve(stream, server_context(endless))) as provider:
        with pytest.raises(GuestProtocolError, match="more than"):
            await provider.quote(CHALLENGE)


async def test_a_guest_that_everybody_would_refuse(guest: Guest, forge: Any) -> None:
    wrong = make_guest(lambda data: forge.quote())
    async with listening(lambda stream: serve(stream, server_context(wrong))) as provider:
        with pytest.raises(GuestReportDataError):
            await provider.quote(CHALLENGE)


async def test_a_challenge_of_another_length() -> None:
    with pytest.raises(EvidenceMalformedError):
        await CocoonGuest("127.0.0.1", 9).quote(CHALLENGE[:-1])


def temporary_files(folder: Path) -> list[int]:
    """The modes of what lies in `folder`."""
    return [path.stat().st_mode & 0o777 for path in folder.rglob("*")]


async def test_no_file_is_left(guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    async with listening(lambda stream: serve(stream, server_context(guest))) as provider:
        await provider.quote(CHALLENGE)
    assert temporary_files(tmp_path) == []


async def test_no_file_is_left_by_a_cancelled_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen: list[int] = []
    scope = trio.CancelScope()

    async def handler(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        seen.extend(temporary_files(tmp_path))
        scope.cancel()

    async with listening(handler) as provider:
        with scope:
            await provider.quote(CHALLENGE)
    assert scope.cancelled_caught
    assert (seen, temporary_files(tmp_path)) == ([0o700, 0o600], [])


async def test_it_says_goodbye(guest: Guest) -> None:
    goodbyes = []
    served = trio.Event()

    async def handler(stream: trio.SocketStream) -> None:
        goodbyes.append(await serve(stream, server_context(guest)))
        served.set()

    async with listening(handler) as provider:
        await provider.quote(CHALLENGE)
        await served.wait()
    assert goodbyes == [True]


async def test_a_library_that_tells_no_secret(guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = cocoon_guest._context
    monkeypatch.setattr(cocoon_guest, "_context", lambda keylog: context(tmp_path / "elsewhere"))
    async with listening(lambda stream: serve(stream, server_context(guest))) as provider:
        with pytest.raises(GuestProtocolError, match="keys"):
            await provider.quote(CHALLENGE)


async def test_no_room_for_the_file(guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    async with listening(lambda stream: serve(stream, server_context(guest))) as provider:
        with pytest.raises(ConfigurationError, match="missing"):
            await provider.quote(CHALLENGE)


# What is captured on the wire.


@given(sent=st.binary(max_size=200), received=st.binary(max_size=200))
def test_any_bytes_on_the_wire_are_refused(sent: bytes, received: bytes) -> None:
    with pytest.raises(GuestProtocolError):
        recover_messages(sent, received, bytes(48))


@pytest.fixture
async def captured(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> tuple[bytes, bytes, bytes]:
    """What a connection sent and received, and its secret."""
    kept: list[tuple[bytes, bytes, bytes]] = []

    def keep(sent: bytes, received: bytes, secret: bytes) -> bytes:
        kept.append((sent, received, secret))
        return recover_messages(sent, received, secret)

    monkeypatch.setattr(cocoon_guest, "recover_messages", keep)
    async with listening(lambda stream: serve(stream, server_context(guest))) as provider:
        await provider.quote(CHALLENGE)
    return kept[0]


async def test_another_secret_decrypts_nothing(captured: tuple[bytes, bytes, bytes]) -> None:
    sent, received, secret = captured
    # Not without its last byte: if that is zero, the key that is derived is the same (HMAC fills up with zeros).
    for other in (secret[::-1], secret[1:], b""):
        with pytest.raises(GuestProtocolError, match="decrypt"):
            recover_messages(sent, received, other)


async def test_a_connection_cut_short(captured: tuple[bytes, bytes, bytes]) -> None:
    sent, received, secret = captured
    whole = recover_messages(sent, received, secret)
    needed = len(received) - len(list(_records(received))[-1])  # The last one holds the Finished message.
    assert recover_messages(sent, received[:needed], secret) == whole
    for length in range(needed):
        with pytest.raises(GuestProtocolError):
            recover_messages(sent, received[:length], secret)
    for length in range(0, len(sent), 5):
        with contextlib.suppress(GuestProtocolError):
            assert recover_messages(sent[:length], received, secret) == whole


async def test_another_record_within_the_flight(captured: tuple[bytes, bytes, bytes]) -> None:
    """A record that is no handshake's, though encrypted under the right key."""
    sent, received, secret = captured
    records = list(_records(received))
    first = next(at for at, record in enumerate(records) if record[0] == 23)
    suite = _SUITES[read_cipher_suite(records[0][5:])]
    key, iv = (_expand(suite, secret, label, length) for label, length in ((b"key", suite.key_bytes), (b"iv", 12)))
    for inner in (b"\x02\x28\x15", b"\0" * 9, b""):
        header = b"\x17\x03\x03" + (len(inner) + 16).to_bytes(2, "big")
        forged = header + suite.aead(key).encrypt(iv, inner, header)
        with pytest.raises(GuestProtocolError, match="alert"):
            recover_messages(sent, b"".join([*records[:first], forged, *records[first + 1 :]]), secret)
