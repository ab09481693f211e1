"""The handshake messages of a captured TLS 1.3 connection, in plain: what `attestation.handshake` verifies.

TLS itself is the library's (`ssl`), which gives neither the messages nor the transcript. So the client keeps
the bytes of both directions and the server's handshake traffic secret, with which the server's flight up to
CertificateVerify is decrypted here. The bytes are untrusted; that a record decrypts says nothing about who
made it, the signature in the CertificateVerify does.

Source: RFC 8446, sections 5 (records), 7.1 and 7.3 (keys).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from attestation.errors import GuestProtocolError, HandshakeError
from attestation.handshake import MessageType, read_cipher_suite, split_messages

_CHANGE_CIPHER_SPEC, _ALERT, _HANDSHAKE, _APPLICATION_DATA = 20, 21, 22, 23
_HEADER_BYTES = 5
_IV_BYTES = 12


@dataclass(frozen=True, slots=True)
class _Suite:
    aead: type[AESGCM | ChaCha20Poly1305]
    hash: hashes.HashAlgorithm
    key_bytes: int


_SUITES = {
    0x1301: _Suite(AESGCM, hashes.SHA256(), 16),
    0x1302: _Suite(AESGCM, hashes.SHA384(), 32),
    0x1303: _Suite(ChaCha20Poly1305, hashes.SHA256(), 32),
}


def recover_messages(sent: bytes, received: bytes, secret: bytes) -> bytes:
    """Return the messages from ClientHello to CertificateVerify of the connection that `sent` and `received`.

    Both are the bytes on the wire from the first on; `secret` is the server's handshake traffic secret.

    Raises:
        GuestProtocolError: they do not hold these messages, or the secret is not that of this connection.
    """
    client_hello = _first_message(_plain(sent), MessageType.CLIENT_HELLO)
    records = list(_records(received))
    server_hello = _first_message(_plain(received), MessageType.SERVER_HELLO)
    try:
        suite = _SUITES[read_cipher_suite(server_hello)]
    except HandshakeError as error:
        raise GuestProtocolError(str(error)) from error
    flight = b""
    for fragment in _decrypted(records, suite, secret):
        flight += fragment
        at = 0
        for kind, message in split_messages(flight):
            at += len(message)
            if kind == MessageType.CERTIFICATE_VERIFY:
                return client_hello + server_hello + flight[:at]
    raise GuestProtocolError("the connection ended before its CertificateVerify")


def _first_message(data: bytes, expected: MessageType) -> bytes:
    for kind, message in split_messages(data):
        if kind == expected:
            return message
        break
    raise GuestProtocolError(f"no {expected.name} at the start")


def _plain(data: bytes) -> bytes:
    return b"".join(record[_HEADER_BYTES:] for record in _records(data) if record[0] == _HANDSHAKE)


def _records(data: bytes) -> Iterator[bytes]:
    """Yield each whole record at the front of `data`, with its header."""
    at = 0
    while at + _HEADER_BYTES <= len(data):
        end = at + _HEADER_BYTES + int.from_bytes(data[at + 3 : at + 5], "big")
        if end > len(data):
            return
        yield data[at:end]
        at = end


def _decrypted(records: list[bytes], suite: _Suite, secret: bytes) -> Iterator[bytes]:
    """Yield what each encrypted record holds of the handshake, in order."""
    aead = suite.aead(_expand(suite, secret, b"key", suite.key_bytes))
    iv = int.from_bytes(_expand(suite, secret, b"iv", _IV_BYTES), "big")
    encrypted = (record for record in records if record[0] == _APPLICATION_DATA)
    for number, record in enumerate(encrypted):
        header, body = record[:_HEADER_BYTES], record[_HEADER_BYTES:]
        try:
            inner = aead.decrypt((iv ^ number).to_bytes(_IV_BYTES, "big"), body, header).rstrip(b"\0")
        except (InvalidTag, ValueError) as error:
            raise GuestProtocolError(f"record {number} does not decrypt") from error
        if inner[-1:] != bytes([_HANDSHAKE]):
            raise GuestProtocolError("an alert, or data, within its handshake")
        yield inner[:-1]


def _expand(suite: _Suite, secret: bytes, label: bytes, length: int) -> bytes:
    """HKDF-Expand-Label with an empty context."""
    name = b"tls13 " + label
    info = length.to_bytes(2, "big") + bytes([len(name)]) + name + b"\0"
    return HKDFExpand(algorithm=suite.hash, length=length, info=info).derive(secret)
