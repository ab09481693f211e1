"""A stand-in for a Cocoon worker's TLS port: an RA-TLS certificate, and a TLS 1.3 server that presents it.

The certificate is built with one thing wrong on request. The server is OpenSSL's over any trio stream, by way of
pyOpenSSL, which can choose the cipher suite. What breaks on the wire (garbage, silence) is left to the tests.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL

from attestation.guest_certificate import OID_CLAIMS, OID_QUOTE

NOT_BEFORE_S = 1_800_000_000
NOT_AFTER_S = NOT_BEFORE_S + 86_400

GuestKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey


@dataclass
class Guest:
    """A key and the DER of its certificate."""

    key: GuestKey
    certificate: bytes

    @property
    def public(self) -> bytes:
        assert isinstance(self.key, ed25519.Ed25519PrivateKey)
        return self.key.public_key().public_bytes_raw()


def make_guest(quote_over: Callable[[bytes], bytes], **changes: Any) -> Guest:
    """A guest whose quote `quote_over` makes (from 64 bytes of report data). See `build_guest_certificate`."""
    key = ed25519.Ed25519PrivateKey.generate()
    claims = key.public_key().public_bytes_raw()
    quote = quote_over(hashlib.sha512(claims).digest())
    parts: dict[str, Any] = {"key": key, "quote": quote, "claims": claims}
    return Guest(key=key, certificate=build_guest_certificate(**(parts | changes)))


def build_guest_certificate(
    *,
    key: GuestKey,
    quote: bytes | None,
    claims: bytes | None,
    signer: GuestKey | None = None,
    issuer: str = "cocoon-worker",
    is_ca: bool = False,
    signs: bool = True,
    extra: x509.ExtensionType | None = None,
    padding: int = 0,
) -> bytes:
    """DER of a certificate as Cocoon makes it; None leaves an extension out, `extra` is added as a critical one.

    `padding` bytes are added in an extension that may be ignored.
    """
    signer = signer or key
    usage = dict.fromkeys(_USAGES, False) | {"digital_signature": signs}
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name("cocoon-worker"))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(datetime.fromtimestamp(NOT_BEFORE_S, UTC))
        .not_valid_after(datetime.fromtimestamp(NOT_AFTER_S, UTC))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    )
    for oid, value in ((OID_QUOTE, quote), (OID_CLAIMS, claims)):
        if value is not None:
            builder = builder.add_extension(x509.UnrecognizedExtension(oid, value), critical=True)
    if extra is not None:
        builder = builder.add_extension(extra, critical=True)
    if padding:
        filler = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.12345.99"), bytes(padding))
        builder = builder.add_extension(filler, critical=False)
    algorithm = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    certificate: x509.Certificate = builder.sign(signer, algorithm)
    return certificate.public_bytes(serialization.Encoding.DER)


_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def server_context(
    guest: Guest,
    *,
    suite: str = "TLS_AES_256_GCM_SHA384",
    asks_for_certificate: bool = False,
    curve: ec.EllipticCurve | None = None,
    version: int = SSL.TLS1_3_VERSION,
) -> SSL.Context:
    """A server's settings. A client certificate, if asked for, is demanded, as Cocoon does; `curve` excludes others."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(version)
    context.set_max_proto_version(version)
    context.set_tls13_ciphersuites(suite.encode())
    context.use_certificate(x509.load_der_x509_certificate(guest.certificate))
    context.use_privatekey(guest.key)
    if asks_for_certificate:
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
    if curve is not None:
        context.set_tmp_ecdh(curve)
    return context


async def serve(stream: trio.abc.Stream, context: SSL.Context, *, chunk_bytes: int = 1 << 16) -> bool:
    """Answer one handshake on `stream`, sending `chunk_bytes` at a time, until the client goes; tell if it said so."""
    tls = SSL.Connection(context, None)
    tls.set_accept_state()
    while True:
        failed = False
        try:
            tls.do_handshake()
        except SSL.WantReadError:
            pass
        except SSL.Error:
            failed = True
        data = b"".join(_pending(tls))
        try:
            for at in range(0, len(data), chunk_bytes):
                await stream.send_all(data[at : at + chunk_bytes])
            received = await stream.receive_some(4096)
        except trio.BrokenResourceError:
            received = b""
        if failed or not received:
            return bool(tls.get_shutdown() & SSL.RECEIVED_SHUTDOWN)
        tls.bio_write(received)
        with suppress(SSL.Error):
            tls.recv(1)


def _pending(tls: SSL.Connection) -> Iterator[bytes]:
    while True:
        try:
            yield tls.bio_read(1 << 14)
        except SSL.WantReadError:
            return


# A handshake without TLS: its messages one by one, each with one thing wrong on request.


def extension(kind: int, body: bytes) -> bytes:
    return kind.to_bytes(2, "big") + sized(2, body)


def sized(prefix: int, body: bytes) -> bytes:
    return len(body).to_bytes(prefix, "big") + body


def message(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + sized(3, body)


def client_hello(name: bytes, *, versions: bytes = b"\x02\x03\x04", extra: bytes = b"") -> bytes:
    """Offers `versions` (with its length) and has the server name `name`; `extra` are further extensions."""
    entry = b"\0" + sized(2, name)
    extensions = extension(0, sized(2, entry)) + extension(43, versions) + extra
    return message(1, b"\x03\x03" + bytes(32) + sized(1, b"") + sized(2, b"\x13\x02") + b"\1\0" + sized(2, extensions))


def server_hello(suite: int = 0x1302, *, version: bytes = b"\x03\x04", random: bytes = bytes(32)) -> bytes:
    extensions = extension(43, version)
    return message(2, b"\x03\x03" + random + sized(1, b"") + suite.to_bytes(2, "big") + b"\0" + sized(2, extensions))


ENCRYPTED_EXTENSIONS = message(8, sized(2, b""))
CERTIFICATE_REQUEST = message(13, sized(1, b"") + sized(2, b""))


def certificate_message(*ders: bytes, context: bytes = b"") -> bytes:
    return message(11, sized(1, context) + sized(3, b"".join(sized(3, der) + sized(2, b"") for der in ders)))


def certificate_verify(
    guest: Guest,
    before: bytes,
    *,
    hash_name: str = "sha384",
    algorithm: int = 0x0807,
    side: bytes = b"server",
) -> bytes:
    """The guest's signature over the messages `before`; `side` is whose it claims to be."""
    assert isinstance(guest.key, ed25519.Ed25519PrivateKey)
    context = b" " * 64 + b"TLS 1.3, " + side + b" CertificateVerify\0"
    signature = guest.key.sign(context + hashlib.new(hash_name, before).digest())
    return message(15, algorithm.to_bytes(2, "big") + sized(2, signature))


async def ask_for_work(stream: trio.abc.Stream, difficulty: int, *, magic: int = 0x418E1291) -> tuple[bytes, bytes]:
    """Ask for a proof of work as Cocoon's router does; return (salt, the answer's 12 bytes)."""
    salt = hashlib.sha256(b"salt").digest()[:16]
    await stream.send_all(struct.pack("<Ii", magic, difficulty) + salt)
    answer = b""
    while len(answer) < 12:
        chunk = await stream.receive_some(12 - len(answer))
        if not chunk:
            break
        answer += chunk
    return salt, answer
