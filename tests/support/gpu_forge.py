"""A whole software PKI of GPUs and the reports they make, in which a test gets one thing wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.x509.oid import NameOID

from attestation.gpu import GpuEvidence, VerifiedGpu, encode_gpu_evidence, verify_gpu_evidence
from attestation.providers.software_builders import build_usage

NOW = 1_800_000_000
DAY = 86_400
NONCE = hashlib.sha256(b"nonce").digest()
FWID = hashlib.sha384(b"firmware").digest()
FWID_DER = bytes.fromhex("303d06096086480165030402020430")
OID_HOPPER, OID_TCG = "2.23.133.5.4.1", "2.23.133.5.4.1.1"
BLOCKS = {index: hashlib.sha384(bytes([index])).digest() if index % 2 else bytes(48) for index in range(1, 9)}
FIELDS = {
    6: bytes.fromhex("009f009601000000"),
    3: b"550.90.07\0",
    11: b"\x55",
    20: FWID,
    21: b"\x55",
    77: b"of a later generation",
}

Key = ec.EllipticCurvePrivateKey


@dataclass(frozen=True, kw_only=True)
class Issuer:
    """A certificate with its private key."""

    der: bytes
    key: Key
    name: x509.Name

    def pem(self) -> bytes:
        return x509.load_der_x509_certificate(self.der).public_bytes(serialization.Encoding.PEM)


@cache
def key_of(name: str) -> Key:
    """The key of a name, the same for one run; P-384."""
    return ec.generate_private_key(ec.SECP384R1())


def hopper_fwid(fwid: bytes = FWID) -> tuple[str, bytes]:
    """OID and value of the extension as Hopper has it: version, device key (cut short here), FWID."""
    return OID_HOPPER, bytes.fromhex("3045020101") + b"\x03\x01\x00" + FWID_DER + fwid


def tcg_fwid(
    fwid: bytes = FWID, second: bytes = FWID_DER + bytes(48), tail: bytes = b"\x87\x02\x00\x01"
) -> tuple[str, bytes]:
    """OID and value as Blackwell has it: vendor, index, two FWIDs of which the second is zeros, flags."""
    fwids = FWID_DER + fwid + second
    body = b"\x80\x06NVIDIA\x84\x01\x00\xa6" + bytes([len(fwids)]) + fwids + tail
    return OID_TCG, b"\x30\x81" + bytes([len(body)]) + body


def certificate(
    name: str,
    issuer: Issuer | None,
    *,
    ca: bool = True,
    path_length: int | None = None,
    usage: x509.KeyUsage | None = None,
    key: Key | None = None,
    fwids: Sequence[tuple[str, bytes]] = (),
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    not_before_s: int = NOW - 100 * DAY,
    not_after_s: int = NOW + 100 * DAY,
    algorithm: hashes.HashAlgorithm | None = None,
    names: Sequence[str] | None = None,
    serial: int | None = None,
) -> Issuer:
    """A certificate; a CA may sign certificates, any other has no basic constraints and may sign data."""
    key = key or key_of(name)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text) for text in (names or [name])])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.name if issuer else subject)
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(datetime.fromtimestamp(not_before_s, UTC))
        .not_valid_after(datetime.fromtimestamp(not_after_s, UTC))
        .add_extension(usage or build_usage(data=not ca, certificates=ca), critical=True)
    )
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
    for oid, value in fwids:
        builder = builder.add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), critical=False)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    signed = builder.sign(issuer.key if issuer else key, algorithm or hashes.SHA384())
    return Issuer(der=signed.public_bytes(serialization.Encoding.DER), key=key, name=subject)


def report(
    nonce: bytes = NONCE,
    *,
    key: Key | None = None,
    blocks: Mapping[int, bytes] = BLOCKS,
    fields: Mapping[int, bytes] = FIELDS,
    request: bytes = b"\x11\xe0\x01\xff",
    response: bytes = b"\x11\x60\x00\x00",
    record: bytes | None = None,
    count: int | None = None,
    opaque: bytes | None = None,
    tail: bytes = b"",
) -> bytes:
    """A report signed by `key` (by default the leaf's); every part can be replaced before it is signed."""
    record = b"".join(block(index, value) for index, value in blocks.items()) if record is None else record
    opaque = b"".join(field(kind, value) for kind, value in fields.items()) if opaque is None else opaque
    signed = (
        request
        + nonce
        + b"\x00"
        + response
        + bytes([len(blocks) if count is None else count])
        + len(record).to_bytes(3, "little")
        + record
        + bytes(range(32))
        + len(opaque).to_bytes(2, "little")
        + opaque
    )
    return signed + sign(key or key_of("leaf"), signed) + tail


def block(index: int, value: bytes, specification: int = 1) -> bytes:
    measured = b"\x01" + len(value).to_bytes(2, "little") + value
    return bytes([index, specification]) + len(measured).to_bytes(2, "little") + measured


def field(kind: int, value: bytes) -> bytes:
    return kind.to_bytes(2, "little") + len(value).to_bytes(2, "little") + value


def sign(key: Key, message: bytes) -> bytes:
    r, s = utils.decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA384())))
    return r.to_bytes(48, "big") + s.to_bytes(48, "big")


@dataclass(frozen=True, kw_only=True)
class GpuForge:
    """Root, family and provisioner, and builders whose defaults verify."""

    root: Issuer
    family: Issuer
    provisioner: Issuer

    @classmethod
    def new(cls) -> GpuForge:
        root = certificate("GPU root", None)
        family = certificate("GPU family", root)
        return cls(root=root, family=family, provisioner=certificate("GPU provisioner", family))

    def device(self, name: str = "device", **changes: Any) -> Issuer:
        return certificate(name, self.provisioner, **changes)

    def leaf(self, device: Issuer | None = None, name: str = "leaf", **changes: Any) -> Issuer:
        return certificate(name, device or self.device(), **({"ca": False, "fwids": [hopper_fwid()]} | changes))

    def chain(self, leaf: Issuer | None = None, device: Issuer | None = None) -> tuple[bytes, ...]:
        """The chain below the root; a leaf is by default one of `device`."""
        device = device or self.device()
        return tuple(issuer.der for issuer in (leaf or self.leaf(device), device, self.provisioner, self.family))

    def gpu(self, chain: tuple[bytes, ...] | None = None, raw: bytes | None = None) -> GpuEvidence:
        return GpuEvidence(chain=chain or self.chain(), report=raw or report())

    def verify(self, *gpus: GpuEvidence, **changes: Any) -> tuple[VerifiedGpu, ...]:
        """Verify `gpus`, one by default."""
        settings = {"nonce": NONCE, "root": self.root.der, "now": NOW}
        return verify_gpu_evidence(encode_gpu_evidence(gpus or [self.gpu()]), **(settings | changes))


def verified(**changes: Any) -> VerifiedGpu:
    """A verified GPU for appraisals."""
    gpu = VerifiedGpu(
        identity=bytes(32),
        model="GPU",
        fwid=FWID,
        driver="550.90.07",
        vbios="96.00.9F.00.01",
        measurements=BLOCKS,
        protected_pcie=False,
    )
    return replace(gpu, **changes)
