"""A guest's handshake as evidence: what an honest one proves, and each way in which it does not."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from ra_tls_guest import (
    CERTIFICATE_REQUEST,
    ENCRYPTED_EXTENSIONS,
    Guest,
    build_guest_certificate,
    certificate_message,
    certificate_verify,
    client_hello,
    extension,
    make_guest,
    message,
    serve,
    server_context,
    server_hello,
)

from attestation.errors import (
    AttestationError,
    EvidenceMalformedError,
    GuestCertificateFormError,
    GuestClaimsError,
    HandshakeChallengeError,
    HandshakeError,
    HandshakeFormError,
    HandshakeSignatureError,
    HandshakeVersionError,
)
from attestation.handshake import server_name, split_messages, verify_handshake
from attestation.providers.cocoon_guest import shake_hands
from attestation.types import HANDSHAKE_BYTES_MAX

CHALLENGE = bytes(range(64))
NAME = server_name(CHALLENGE).encode()
RETRY_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")


@pytest.fixture(scope="session")
def guest(forge: Any) -> Guest:
    return make_guest(lambda data: forge.quote(forge.signed(report_data=data)))


async def handshake(guest: Guest, name: str, *, chunk_bytes: int = 1 << 16, **settings: Any) -> bytes:
    """The messages of a real handshake over streams in memory."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery, ours:
        context = server_context(guest, **settings)
        nursery.start_soon(lambda: serve(theirs, context, chunk_bytes=chunk_bytes))
        return await shake_hands(ours, name)


@pytest.fixture(scope="session")
def evidence(guest: Guest) -> bytes:
    return trio.run(handshake, guest, server_name(CHALLENGE))


def forged(guest: Guest, *messages: bytes, **signature: Any) -> bytes:
    """`messages` with the guest's CertificateVerify after them; without any, those of an honest handshake."""
    honest = (client_hello(NAME), server_hello(), ENCRYPTED_EXTENSIONS, certificate_message(guest.certificate))
    before = b"".join(messages or honest)
    return before + certificate_verify(guest, before, **signature)


# What an honest handshake proves.


@pytest.mark.parametrize("suite", ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"])
@pytest.mark.parametrize("asks_for_certificate", [False, True])
async def test_a_real_handshake_gives_the_guest(guest: Guest, suite: str, asks_for_certificate: bool) -> None:
    messages = await handshake(guest, server_name(CHALLENGE), suite=suite, asks_for_certificate=asks_for_certificate)
    found = verify_handshake(messages, CHALLENGE)
    assert (found.key, found.claims) == (guest.public, guest.public)
    assert found.quote in guest.certificate
    assert (13 in dict(split_messages(messages))) == asks_for_certificate


@pytest.mark.parametrize("chunk_bytes", [1, 5, 1000])
async def test_records_in_pieces(guest: Guest, chunk_bytes: int) -> None:
    messages = await handshake(guest, server_name(CHALLENGE), chunk_bytes=chunk_bytes)
    assert verify_handshake(messages, CHALLENGE).key == guest.public


@pytest.mark.parametrize(("suite", "hash_name"), [(0x1301, "sha256"), (0x1302, "sha384"), (0x1303, "sha256")])
@pytest.mark.parametrize("asked", [b"", CERTIFICATE_REQUEST])
def test_the_forge_makes_what_verifies(guest: Guest, suite: int, hash_name: str, asked: bytes) -> None:
    messages = (client_hello(NAME), server_hello(suite), ENCRYPTED_EXTENSIONS, asked)
    data = forged(guest, *messages, certificate_message(guest.certificate), hash_name=hash_name)
    assert verify_handshake(data, CHALLENGE).key == guest.public


def test_the_name_is_a_name() -> None:
    labels = server_name(CHALLENGE).split(".")
    assert "".join(labels[:4]) == CHALLENGE.hex()
    assert labels[4:] == ["gpupool"]
    assert max(map(len, labels)) <= 63
    with pytest.raises(EvidenceMalformedError):
        server_name(CHALLENGE + b"\0")


# The challenge.


def test_another_challenge(evidence: bytes) -> None:
    with pytest.raises(HandshakeChallengeError):
        verify_handshake(evidence, CHALLENGE[::-1])


@pytest.mark.parametrize("name", [NAME.upper(), NAME + b".", NAME[:-1], b"", NAME.replace(b".", b"", 1)])
def test_another_server_name(guest: Guest, name: bytes) -> None:
    hello = (client_hello(name), server_hello(), ENCRYPTED_EXTENSIONS, certificate_message(guest.certificate))
    with pytest.raises(HandshakeChallengeError):
        verify_handshake(forged(guest, *hello), CHALLENGE)


def test_two_server_names(guest: Guest) -> None:
    hello = client_hello(b"elsewhere", extra=extension(0, b"\0\x03\0\0\0"))
    with pytest.raises(HandshakeFormError, match="twice"):
        verify_handshake(
            forged(guest, hello, server_hello(), ENCRYPTED_EXTENSIONS, certificate_message(guest.certificate)),
            CHALLENGE,
        )


# The version.


@pytest.mark.parametrize(
    ("client", "server"),
    [
        (client_hello(NAME, versions=b"\x02\x03\x03"), server_hello()),
        (client_hello(NAME, versions=b"\0"), server_hello()),
        (client_hello(NAME, versions=b"\x03\x13\x03\x04"), server_hello()),
        (client_hello(NAME), server_hello(version=b"\x03\x03")),
        (client_hello(NAME), server_hello(version=b"")),
        (client_hello(NAME), server_hello(0x1304)),
        (client_hello(NAME), server_hello(0xC02C)),
        (client_hello(NAME), server_hello(random=RETRY_RANDOM)),
    ],
)
def test_no_tls_1_3(guest: Guest, client: bytes, server: bytes) -> None:
    with pytest.raises(HandshakeVersionError):
        verify_handshake(
            forged(guest, client, server, ENCRYPTED_EXTENSIONS, certificate_message(guest.certificate)), CHALLENGE
        )


# The certificate; more of it in test_cocoon_guest.


def test_no_single_certificate(guest: Guest) -> None:
    for certificates in (
        certificate_message(),
        certificate_message(guest.certificate, guest.certificate),
        certificate_message(guest.certificate, context=b"c"),
    ):
        data = forged(guest, client_hello(NAME), server_hello(), ENCRYPTED_EXTENSIONS, certificates)
        with pytest.raises(HandshakeError):
            verify_handshake(data, CHALLENGE)


def test_a_certificate_that_is_no_guests(guest: Guest, forge: Any) -> None:
    wrong = build_guest_certificate(key=guest.key, quote=forge.quote(), claims=b"others")
    with pytest.raises(GuestClaimsError):
        verify_handshake(
            forged(guest, client_hello(NAME), server_hello(), ENCRYPTED_EXTENSIONS, certificate_message(wrong)),
            CHALLENGE,
        )


# The signature.


@pytest.mark.parametrize("signature", [{"hash_name": "sha256"}, {"side": b"client"}, {"algorithm": 0x0403}])
def test_another_signature(guest: Guest, signature: dict[str, Any]) -> None:
    with pytest.raises(HandshakeSignatureError):
        verify_handshake(forged(guest, **signature), CHALLENGE)


def test_a_certificate_that_somebody_else_presents(guest: Guest, forge: Any) -> None:
    """The case that all this is for: the certificate was seen, the key is not there."""
    thief = make_guest(lambda data: forge.quote())
    seen = (client_hello(NAME), server_hello(), ENCRYPTED_EXTENSIONS, certificate_message(guest.certificate))
    with pytest.raises(HandshakeSignatureError):
        verify_handshake(forged(thief, *seen), CHALLENGE)


def test_a_handshake_whose_hello_was_exchanged(guest: Guest, evidence: bytes) -> None:
    """An old handshake under a new ClientHello."""
    other = b"\x07" * 64
    old = dict(split_messages(evidence))[1]
    renamed = old.replace(NAME, server_name(other).encode())
    with pytest.raises(HandshakeSignatureError):
        verify_handshake(renamed + evidence[len(old) :], other)


# The form.


@pytest.mark.parametrize(
    "order",
    [
        [],
        [1],
        [1, 2, 8, 11],
        [2, 8, 11, 15],
        [1, 2, 11, 15],
        [1, 2, 8, 15, 11],
        [1, 2, 8, 13, 13, 11, 15],
        [1, 2, 8, 25, 11, 15],
        [1, 1, 2, 8, 11, 15],
        [1, 2, 8, 11, 15, 20],
        [1, 2, 8, 11, 15, 15],
    ],
)
def test_other_messages(order: list[int]) -> None:
    with pytest.raises(HandshakeFormError):
        verify_handshake(b"".join(message(kind, b"") for kind in order), CHALLENGE)


@pytest.mark.parametrize(("length", "said"), [(HANDSHAKE_BYTES_MAX, "types"), (HANDSHAKE_BYTES_MAX + 1, "at most")])
def test_too_long_is_refused_unread(length: int, said: str) -> None:
    with pytest.raises(HandshakeFormError, match=said):
        verify_handshake(bytes(length), CHALLENGE)


def test_messages_are_split_up_to_the_last_whole_one() -> None:
    first, second = message(1, b"body"), message(2, b"")
    assert list(split_messages(first + second)) == [(1, first), (2, second)]
    assert list(split_messages(first + second[:-1])) == [(1, first)]
    assert list(split_messages(first[:-1])) == []


@pytest.mark.parametrize("which", [0, 1, 3, 4])
def test_every_message_cut_short_is_refused(guest: Guest, which: int) -> None:
    messages = [part for _, part in split_messages(forged(guest))]
    whole = messages[which]
    for length in range(0, len(whole) - 4, 1 + len(whole) // 100):
        messages[which] = message(whole[0], whole[4 : 4 + length])
        with pytest.raises(HandshakeFormError, match="expected"):
            verify_handshake(b"".join(messages), CHALLENGE)


def test_every_prefix_is_refused(evidence: bytes) -> None:
    for length in range(len(evidence)):
        with pytest.raises(HandshakeFormError):
            verify_handshake(evidence[:length], CHALLENGE)


def test_slack_is_refused_wherever_it_hides(guest: Guest) -> None:
    hello, chosen = client_hello(NAME), server_hello()
    certificate = certificate_message(guest.certificate)

    def longer(part: bytes) -> bytes:
        return message(part[0], part[4:] + b"\0")

    honest = forged(guest)
    proof = certificate_verify(guest, honest)
    for data in (
        honest + b"\0",
        forged(guest, client_hello(NAME, versions=b"\x02\x03\x04\0"), chosen, ENCRYPTED_EXTENSIONS, certificate),
        forged(guest, longer(hello), chosen, ENCRYPTED_EXTENSIONS, certificate),
        forged(guest, hello, longer(chosen), ENCRYPTED_EXTENSIONS, certificate),
        forged(guest, hello, chosen, ENCRYPTED_EXTENSIONS, longer(certificate)),
        honest[: -len(proof)] + longer(honest[-len(proof) :]),
    ):
        with pytest.raises(HandshakeFormError):
            verify_handshake(data, CHALLENGE)


def test_a_certificate_with_slack_behind_it(guest: Guest) -> None:
    wrong = certificate_message(guest.certificate + b"\0")
    with pytest.raises(GuestCertificateFormError):
        verify_handshake(forged(guest, client_hello(NAME), server_hello(), ENCRYPTED_EXTENSIONS, wrong), CHALLENGE)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_no_bit_can_be_changed(evidence: bytes, data: st.DataObject) -> None:
    bit = data.draw(st.integers(0, len(evidence) * 8 - 1))
    flipped = bytearray(evidence)
    flipped[bit // 8] ^= 1 << bit % 8
    with pytest.raises(AttestationError):
        verify_handshake(bytes(flipped), CHALLENGE)


@given(st.binary(max_size=300))
def test_any_bytes_verify_or_are_refused(data: bytes) -> None:
    with pytest.raises(AttestationError):
        verify_handshake(data, CHALLENGE)


@given(st.lists(st.tuples(st.sampled_from([1, 2, 8, 11, 13, 15]), st.binary(max_size=80)), max_size=7))
def test_any_messages_verify_or_are_refused(parts: list[tuple[int, bytes]]) -> None:
    with pytest.raises(AttestationError):
        verify_handshake(b"".join(message(kind, body) for kind, body in parts), CHALLENGE)


@given(st.sampled_from([0, 1, 2, 3, 4]), st.binary(max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_body_of_one_message_is_refused(guest: Guest, which: int, body: bytes) -> None:
    messages = [part for _, part in split_messages(forged(guest))]
    assume(messages[which][4:] != body)
    messages[which] = message(messages[which][0], body)
    with pytest.raises(AttestationError):
        verify_handshake(b"".join(messages), CHALLENGE)
