"""A TLS 1.3 handshake as evidence: its maker talked to an attested guest, for this challenge.

A guest's quote binds the guest's TLS key and no node: anybody who ever saw the certificate could publish its
quote as his own. So the evidence holds a handshake whose ClientHello carries the challenge as server name;
the guest's key signed it, and the challenge binds node key, pool and moment (`attestation.binding`).

It proves that the guest was alive after the anchor and that the publisher could reach its port. It does not
prove that the publisher owns the guest: whoever can open a connection to that port can make one (relay), and
one guest can serve several publishers. The policy decides whether that is enough.

Rules (the data is untrusted; nothing is decrypted here, the messages are plain)
1. At most 56 KiB; exactly ClientHello, ServerHello, EncryptedExtensions, CertificateRequest or not,
   Certificate, CertificateVerify, and nothing after.
2. The ClientHello offers TLS 1.3, and has one server name, which is the challenge's.
3. The ServerHello is no retry request, selects TLS 1.3 and one of three cipher suites, which gives the hash.
4. The Certificate message answers no request context and holds one certificate (`guest_certificate`).
5. The CertificateVerify is Ed25519 by that certificate's key over the hash of all messages before it.

Every byte is under the signature, or fixed by these rules: no bit of a valid handshake can be changed.

Source: RFC 8446, sections 4 (messages), 4.1.2, 4.1.3, 4.2.1, 4.4.1 to 4.4.3; RFC 6066, section 3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from enum import IntEnum

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from attestation.errors import (
    EvidenceMalformedError,
    GuestCertificateFormError,
    HandshakeChallengeError,
    HandshakeFormError,
    HandshakeSignatureError,
    HandshakeVersionError,
)
from attestation.guest_certificate import GuestCertificate, parse_guest_certificate
from attestation.types import HANDSHAKE_BYTES_MAX

CHALLENGE_BYTES = 64


class MessageType(IntEnum):
    """Handshake message types of TLS 1.3 that occur here."""

    CLIENT_HELLO = 1
    SERVER_HELLO = 2
    ENCRYPTED_EXTENSIONS = 8
    CERTIFICATE = 11
    CERTIFICATE_REQUEST = 13
    CERTIFICATE_VERIFY = 15


HASHES = {0x1301: "sha256", 0x1302: "sha384", 0x1303: "sha256"}
"""Cipher suite -> hash: TLS_AES_128_GCM_SHA256, TLS_AES_256_GCM_SHA384, TLS_CHACHA20_POLY1305_SHA256."""

_TLS_1_3 = b"\x03\x04"
_ED25519 = b"\x08\x07"
_SERVER_NAME, _SUPPORTED_VERSIONS = 0, 43
_RETRY_RANDOM = hashlib.sha256(b"HelloRetryRequest").digest()
_SIGNED_PREFIX = b" " * 64 + b"TLS 1.3, server CertificateVerify\0"
_DOMAIN = "gpupool"
_HELLOS = [MessageType.CLIENT_HELLO, MessageType.SERVER_HELLO, MessageType.ENCRYPTED_EXTENSIONS]
_PROOF = [MessageType.CERTIFICATE, MessageType.CERTIFICATE_VERIFY]
_ORDERS = (_HELLOS + _PROOF, [*_HELLOS, MessageType.CERTIFICATE_REQUEST, *_PROOF])


def verify_handshake(data: bytes, challenge: bytes) -> GuestCertificate:
    """Verify that `data` (messages, at most 56 KiB) is a handshake with a guest for `challenge` (64 bytes).

    Raises:
        HandshakeError: a rule does not hold; its class says which one.
        InvalidQuoteError: the certificate's quote is malformed or of another kind.
    """
    if len(data) > HANDSHAKE_BYTES_MAX:
        raise HandshakeFormError(f"handshake: {len(data)} bytes, at most {HANDSHAKE_BYTES_MAX} are read")
    messages = list(split_messages(data))
    if [kind for kind, _ in messages] not in _ORDERS:
        raise HandshakeFormError(f"handshake: messages of types {[kind for kind, _ in messages][:8]}")
    if sum(len(message) for _, message in messages) != len(data):
        raise HandshakeFormError("handshake: ends within a message")
    _require_challenge(messages[0][1], challenge)
    suite = read_cipher_suite(messages[1][1])
    signed, (_, certificate), (_, verify) = messages[:-1], messages[-2], messages[-1]
    transcript = hashlib.new(HASHES[suite], b"".join(message for _, message in signed)).digest()
    guest = parse_guest_certificate(_read_certificate(certificate))
    _verify_signature(verify, guest.key, transcript)
    return guest


def server_name(challenge: bytes) -> str:
    """The server name that carries `challenge` (64 bytes): its hex in four labels, below a name of nobody's."""
    if len(challenge) != CHALLENGE_BYTES:
        raise EvidenceMalformedError(f"challenge: {len(challenge)} bytes, expected {CHALLENGE_BYTES}")
    text = challenge.hex()
    return ".".join([*(text[at : at + 32] for at in range(0, len(text), 32)), _DOMAIN])


def split_messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (type, whole message with its header) for each complete handshake message at the front of `data`."""
    at = 0
    while at + 4 <= len(data):
        end = at + 4 + int.from_bytes(data[at + 1 : at + 4], "big")
        if end > len(data):
            return
        yield data[at], data[at:end]
        at = end


def read_cipher_suite(server_hello: bytes) -> int:
    """Return the cipher suite (a key of `HASHES`) that a ServerHello message selects (rule 3).

    Raises:
        HandshakeFormError: not a ServerHello.
        HandshakeVersionError: a retry request, another TLS version, or an unknown cipher suite.
    """
    reader = _Reader(server_hello[4:], "ServerHello")
    reader.take(2)
    retry = reader.take(32) == _RETRY_RANDOM
    reader.vector(1)
    suite = reader.uint(2)
    reader.take(1)
    extensions = _read_extensions(reader)
    if retry:
        raise HandshakeVersionError("handshake: the guest asked for another hello")
    if extensions.get(_SUPPORTED_VERSIONS) != _TLS_1_3:
        raise HandshakeVersionError("handshake: the guest does not select TLS 1.3")
    if suite not in HASHES:
        raise HandshakeVersionError(f"handshake: cipher suite {suite:#06x}")
    return suite


def _require_challenge(client_hello: bytes, challenge: bytes) -> None:
    reader = _Reader(client_hello[4:], "ClientHello")
    reader.take(2 + 32)
    reader.vector(1)
    reader.vector(2)
    reader.vector(1)
    extensions = _read_extensions(reader)
    versions = _Reader(extensions.get(_SUPPORTED_VERSIONS, b"\0"), "supported versions")
    offered = versions.vector(1)
    versions.finish()
    if _TLS_1_3 not in (offered[at : at + 2] for at in range(0, len(offered), 2)):
        raise HandshakeVersionError("handshake: TLS 1.3 is not offered")
    name = server_name(challenge).encode()
    entry = b"\0" + len(name).to_bytes(2, "big") + name
    if extensions.get(_SERVER_NAME) != len(entry).to_bytes(2, "big") + entry:
        raise HandshakeChallengeError("handshake: its server name is not this challenge's")


def _read_certificate(message: bytes) -> bytes:
    reader = _Reader(message[4:], "Certificate")
    context = reader.vector(1)
    entries = _Reader(reader.vector(3), "Certificate")
    reader.finish()
    der = entries.vector(3)
    entries.vector(2)
    if context or entries.left:
        raise GuestCertificateFormError("handshake: not one certificate, or an answer to a request")
    return der


def _verify_signature(message: bytes, key: bytes, transcript: bytes) -> None:
    reader = _Reader(message[4:], "CertificateVerify")
    algorithm = reader.take(2)
    signature = reader.vector(2)
    reader.finish()
    if algorithm != _ED25519:
        raise HandshakeSignatureError(f"handshake: signature algorithm {algorithm.hex()}, expected Ed25519")
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, _SIGNED_PREFIX + transcript)
    except InvalidSignature:
        raise HandshakeSignatureError("handshake: the guest's key did not sign it") from None


def _read_extensions(reader: _Reader) -> dict[int, bytes]:
    """Read the extensions that end a hello; none may stand twice."""
    block = _Reader(reader.vector(2), "extensions")
    reader.finish()
    extensions: dict[int, bytes] = {}
    while block.left:
        kind = block.uint(2)
        if kind in extensions:
            raise HandshakeFormError(f"handshake: extension {kind} stands twice")
        extensions[kind] = block.vector(2)
    return extensions


class _Reader:
    """Takes fields off the front of `data`; running out, or slack at the end, is a malformed handshake."""

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._what = what
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, length: int) -> bytes:
        if length > self.left:
            raise HandshakeFormError(f"handshake: {self._what}: {length} bytes expected, {self.left} left")
        self._at += length
        return self._data[self._at - length : self._at]

    def uint(self, length: int) -> int:
        return int.from_bytes(self.take(length), "big")

    def vector(self, prefix: int) -> bytes:
        """Take a vector whose length stands before it in `prefix` bytes."""
        return self.take(self.uint(prefix))

    def finish(self) -> None:
        if self.left:
            raise HandshakeFormError(f"handshake: {self._what}: {self.left} bytes too many")
