"""What is fuzzed: each target takes any bytes and may raise nothing but `AttestationError`.

Where it is cheap, a target says more: what was read is written again and must be the same. Seeds are made by the
software forge, whose keys are fresh, so that no two runs begin alike; real quotes are not used.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from attestation.certs import load_point, parse_certificate, parse_revocation_list, split_pem
from attestation.collateral import Collateral, verify_collateral
from attestation.errors import AttestationError
from attestation.gpu import decode_gpu_evidence, encode_gpu_evidence, verify_gpu_evidence
from attestation.gpu_report import parse_gpu_report
from attestation.guest_certificate import parse_guest_certificate
from attestation.handshake import server_name, split_messages, verify_handshake
from attestation.pck import parse_sgx_extension
from attestation.providers import software_builders as build
from attestation.providers.software import SOFTWARE_MACHINE, SOFTWARE_TD
from attestation.providers.tls_records import recover_messages
from attestation.quote import parse_quote
from attestation.tcb import evaluate_tcb
from attestation.tcb_json import parse_qe_identity, parse_tcb_info
from attestation.verify import Verifier
from tests.attestation.conftest import Forge
from tests.support import gpu_forge, ra_tls_guest
from tests.support.quote_mutations import PARTS, Pieces

CHALLENGE = bytes(range(64))
SVN = SOFTWARE_TD.tee_tcb_svn


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """`run` is called with any bytes; `words` are what the format is made of."""

    run: Callable[[bytes], object]
    seeds: Callable[[], Sequence[bytes]]
    words: Sequence[bytes] = ()


def quote(data: bytes) -> None:
    parse_quote(data)
    assert Pieces.of(data).join() == data


def pem(data: bytes) -> None:
    count = data.count(b"-----BEGIN")
    for der in split_pem(data, count, AttestationError):
        certificate = parse_certificate(der, AttestationError)
        with contextlib.suppress(AttestationError):
            parse_sgx_extension(certificate.sgx_extension)


def certificate(data: bytes) -> None:
    parse_certificate(data, AttestationError)


def revocation_list(data: bytes) -> None:
    parse_revocation_list(data, _crl_issuer(), "list")


def pck_extension(data: bytes) -> None:
    platform = parse_sgx_extension(data)
    assert parse_sgx_extension(build.build_sgx_extension(platform)) == platform


def point(data: bytes) -> None:
    load_point(data, AttestationError)


def collateral(data: bytes) -> None:
    read = Collateral.from_json(data)
    again = Collateral.from_json(read.to_json())
    assert (again, again.digest) == (read, read.digest)
    verify_collateral(read, root=_forge().root.der)


def tcb_info(data: bytes) -> None:
    info = parse_tcb_info(data)
    evaluate_tcb(info, parse_qe_identity(_documents()[1]), SOFTWARE_MACHINE, 4, SVN, bytes([7, 1, 3]) + bytes(13))


def qe_identity(data: bytes) -> None:
    evaluate_tcb(parse_tcb_info(_documents()[0]), parse_qe_identity(data), SOFTWARE_MACHINE, 4, SVN, None)


def verify(data: bytes) -> None:
    """The first byte says which part of a valid world the rest replaces."""
    forge, raw, good, verifier = _world()
    selected = data[0] % (len(PARTS) + 1) if data else 0
    if selected:
        parts = {name: getattr(good, name) for name in PARTS} | {PARTS[selected - 1]: data[1:]}
        verifier.verify_quote(raw, Collateral(**parts), now=forge.now)
    else:
        verifier.verify_quote(data[1:], good, now=forge.now)


def gpu_report(data: bytes) -> None:
    parse_gpu_report(data)


def gpu_evidence(data: bytes) -> None:
    assert encode_gpu_evidence(decode_gpu_evidence(data)) == data
    verify_gpu_evidence(data, nonce=gpu_forge.NONCE, root=_gpus().root.der, now=gpu_forge.NOW)


def guest_certificate(data: bytes) -> None:
    parse_guest_certificate(data)


def handshake(data: bytes) -> None:
    split_messages(data)
    verify_handshake(data, CHALLENGE)


def tls_records(data: bytes) -> None:
    """The first two bytes say where the server's records begin."""
    at = 2 + int.from_bytes(data[:2], "big")
    recover_messages(data[2:at], data[at:], bytes(48))


# --- seeds ---


@cache
def _forge() -> Forge:
    return Forge.new()


@cache
def _world() -> tuple[Forge, bytes, Collateral, Verifier]:
    forge = _forge()
    return forge, forge.quote(), forge.collateral(), Verifier(forge.root.der)


@cache
def _crl_issuer() -> Any:
    return parse_certificate(_forge().root.der, AttestationError)


@cache
def _gpus() -> gpu_forge.GpuForge:
    return gpu_forge.GpuForge.new()


@cache
def _guest() -> ra_tls_guest.Guest:
    return ra_tls_guest.make_guest(lambda data: _forge().quote(_forge().signed(report_data=data)))


@cache
def _documents() -> tuple[bytes, bytes]:
    forge = _forge()
    return json.dumps(forge.tcb_info()).encode(), json.dumps(forge.qe_identity()).encode()


def _quotes() -> list[bytes]:
    forge = _forge()
    return [forge.quote(), forge.quote(forge.signed_v5()), forge.quote(qe_auth_data=b"")]


def _lists() -> list[bytes]:
    forge = _forge()
    return [forge.crl(forge.root), forge.crl(forge.root, 1, 2), forge.crl(forge.pck_issuer)]


def _certificates() -> list[bytes]:
    forge = _forge()
    return [issuer.der for issuer in (forge.root, forge.pck_issuer, forge.pck, forge.signer)]


def _parts() -> list[bytes]:
    _, raw, good, _ = _world()
    return [b"\0" + raw, *(bytes([i]) + getattr(good, name) for i, name in enumerate(PARTS, 1))]


def _handshakes() -> list[bytes]:
    guest, seeds = _guest(), []
    for suite, name in ((0x1301, "sha256"), (0x1302, "sha384")):
        messages = (
            ra_tls_guest.client_hello(server_name(CHALLENGE).encode())
            + ra_tls_guest.server_hello(suite)
            + ra_tls_guest.message(8, b"\0\0")
            + ra_tls_guest.certificate_message(guest.certificate)
        )
        seeds.append(messages + ra_tls_guest.certificate_verify(guest, messages, hash_name=name))
    return seeds


def _records() -> list[bytes]:
    hello, answer = ra_tls_guest.client_hello(b"a"), ra_tls_guest.server_hello()
    sent, received = (b"\x16\x03\x01" + len(body).to_bytes(2, "big") + body for body in (hello, answer))
    encrypted = b"\x17\x03\x03\x00\x20" + bytes(32)
    return [len(sent).to_bytes(2, "big") + sent + received + encrypted]


_PEM = (b"-----BEGIN CERTIFICATE-----\n", b"-----END CERTIFICATE-----\n", b"\r\n", b"MII")
_DER = (b"\x30\x82", b"\x30\x80", b"\x02\x01", b"\x04\x10", b"\x06\x0a", b"\x0a\x01", b"\x01\x01\xff", b"\x03\x82")
_OID = bytes.fromhex("2a864886f84d010d01")
_KEYS = tuple(
    f'"{key}":'.encode()
    for key in (
        *("id", "version", "issueDate", "nextUpdate", "fmspc", "pceId", "tcbType", "tcbEvaluationDataNumber"),
        *("tdxModule", "mrsigner", "attributes", "attributesMask", "tdxModuleIdentities", "tcbLevels", "tcb", "svn"),
        *("tcbDate", "tcbStatus", "advisoryIDs", "sgxtcbcomponents", "pcesvn", "tdxtcbcomponents", "isvsvn"),
        *("miscselect", "miscselectMask", "isvprodid"),
    )
)
_JSON = (b'"UpToDate"', b'"Revoked"', b'"2024-01-01T00:00:00Z"', b"1e9", b"-1", b"null", b"\\u0000", b"NaN", b"[]")
_PARTS = tuple(f'"{name}":"'.encode() for name in PARTS)

TARGETS = {
    "quote": Target(run=quote, seeds=_quotes, words=(b"\x04\x00\x02\x00\x81\x00\x00\x00", b"\x06\x00", b"\x05\x00")),
    "pem": Target(run=pem, seeds=lambda: [_forge().chain(), _forge().chain() + b"\0"], words=(*_PEM, *_DER)),
    "certificate": Target(run=certificate, seeds=_certificates, words=(*_DER, _OID)),
    "revocation_list": Target(run=revocation_list, seeds=_lists, words=_DER),
    "pck_extension": Target(
        run=pck_extension, seeds=lambda: [build.build_sgx_extension(SOFTWARE_MACHINE)], words=(*_DER, _OID)
    ),
    "point": Target(run=point, seeds=lambda: [build.point_of(_forge().attestation_key)]),
    "collateral": Target(run=collateral, seeds=lambda: [_world()[2].to_json()], words=(*_PARTS, *_PEM)),
    "tcb_info": Target(run=tcb_info, seeds=lambda: [_documents()[0]], words=(*_KEYS, *_JSON)),
    "qe_identity": Target(run=qe_identity, seeds=lambda: [_documents()[1]], words=(*_KEYS, *_JSON)),
    "verify": Target(run=verify, seeds=_parts, words=(*_PEM, *_DER)),
    "gpu_report": Target(run=gpu_report, seeds=lambda: [gpu_forge.report(), gpu_forge.report(blocks={1: bytes(48)})]),
    "gpu_evidence": Target(
        run=gpu_evidence, seeds=lambda: [encode_gpu_evidence([_gpus().gpu()])], words=(b"\xc4\x10", b"\xc5\x01\x00")
    ),
    "guest_certificate": Target(run=guest_certificate, seeds=lambda: [_guest().certificate], words=_DER),
    "handshake": Target(run=handshake, seeds=_handshakes, words=(b"\x00\x2b\x00\x02\x03\x04", b"\x08\x07", *_DER)),
    "tls_records": Target(run=tls_records, seeds=_records, words=(b"\x16\x03\x03", b"\x17\x03\x03", b"\x14\x03\x03")),
}
