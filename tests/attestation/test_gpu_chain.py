"""A GPU's certificates: every rule of the chain, one broken at a time."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from attestation.errors import RootRefusedError
from attestation.errors.gpu import (
    GpuCertificateError,
    GpuCertificateExpiredError,
    GpuCertificateNotYetValidError,
    GpuChainError,
    GpuChainFormError,
    GpuChainSignatureError,
    GpuChainUsageError,
)
from attestation.gpu_chain import (
    NVIDIA_ROOT,
    NVIDIA_ROOT_SHA256,
    GpuDevice,
    require_gpu_root_allowed,
    verify_gpu_chain,
)
from attestation.providers.software_builders import build_usage
from tests.support import gpu_forge
from tests.support.gpu_forge import DAY, FWID, NOW, GpuForge, certificate, hopper_fwid, tcg_fwid


@pytest.fixture(scope="module")
def forge() -> GpuForge:
    return GpuForge.new()


def verify(forge: GpuForge, *chain: bytes, **changes: Any) -> GpuDevice:
    return verify_gpu_chain(chain, **({"root": forge.root.der, "now": NOW} | changes))


@pytest.mark.parametrize("fwid", [hopper_fwid(), tcg_fwid()])
def test_a_chain_names_device_and_firmware(forge: GpuForge, fwid: tuple[str, bytes]) -> None:
    device = verify(forge, *forge.chain(forge.leaf(fwids=[fwid])))
    assert (device.model, device.fwid) == ("device", FWID)
    assert device.key == gpu_forge.key_of("leaf").public_key()


def test_the_device_is_the_third_below_the_root_however_many_layers_stand_below_it(forge: GpuForge) -> None:
    firmware = certificate("firmware layer", forge.device())
    chain = forge.chain(forge.leaf(firmware))
    assert verify(forge, chain[0], firmware.der, *chain[1:]).identity == verify(forge, *forge.chain()).identity


def test_too_few_or_too_many_certificates(forge: GpuForge) -> None:
    chain = forge.chain()
    layers = [certificate("layer 0", forge.device())]
    for number in range(1, 3):
        layers.insert(0, certificate(f"layer {number}", layers[0]))
    long = (forge.leaf(layers[0]).der, *(layer.der for layer in layers), *chain[1:])
    for wrong in ((), chain[1:], chain[2:], long, (chain[0] + bytes(2048), *chain[1:])):
        with pytest.raises(GpuChainFormError):
            verify(forge, *wrong)


def test_the_order_matters_and_the_root_is_not_sent(forge: GpuForge) -> None:
    chain = forge.chain()
    for wrong in (chain[::-1], (chain[0], chain[2], chain[1], chain[3]), (*chain, forge.root.der)):
        with pytest.raises(GpuChainError):
            verify(forge, *wrong)


def test_a_key_of_the_device_gives_no_second_identity(forge: GpuForge) -> None:
    """Whoever holds a device's key can make layers below it, and still shows the same device."""
    forged = certificate("another device", forge.device())
    chain = (forge.leaf(forged).der, forged.der, *forge.chain()[1:])
    assert verify(forge, *chain).model == "device"


def test_another_root(forge: GpuForge) -> None:
    other = GpuForge.new()
    with pytest.raises(GpuChainSignatureError):
        verify(forge, *forge.chain(), root=certificate("another root", None).der)
    with pytest.raises(GpuChainSignatureError):
        verify(forge, *forge.chain(), root=NVIDIA_ROOT)
    # The same names and keys of another ceremony verify; other keys under the same names do not.
    forged = certificate("GPU root", None, key=ec.generate_private_key(ec.SECP384R1()))
    with pytest.raises(GpuChainSignatureError):
        verify(other, *other.chain(), root=forged.der)


def test_a_certificate_of_another_issuer(forge: GpuForge) -> None:
    stranger = certificate("GPU provisioner", None, key=ec.generate_private_key(ec.SECP384R1()))
    device = certificate("device", stranger)
    with pytest.raises(GpuChainSignatureError, match="signature"):
        verify(forge, *forge.chain(forge.leaf(device), device))
    with pytest.raises(GpuChainSignatureError, match="not issued"):
        verify(forge, *forge.chain(forge.leaf(certificate("unknown", forge.provisioner))))


@pytest.mark.parametrize(
    ("leaf", "device"),
    [
        ({"ca": True}, {}),
        ({"ca": True, "usage": build_usage(data=True, certificates=True)}, {}),
        ({"usage": build_usage(certificates=True)}, {}),
        ({}, {"ca": False}),
        ({}, {"usage": build_usage(data=True)}),
    ],
)
def test_what_each_may_sign(forge: GpuForge, leaf: dict[str, Any], device: dict[str, Any]) -> None:
    issuer = forge.device(**device)
    with pytest.raises(GpuChainUsageError):
        verify(forge, *forge.chain(forge.leaf(issuer, **leaf), issuer))


@pytest.mark.parametrize(("length", "allowed"), [(0, True), (None, True)])
def test_path_length_of_the_device(forge: GpuForge, length: int | None, allowed: bool) -> None:
    device = forge.device(path_length=length)
    assert verify(forge, *forge.chain(forge.leaf(device), device)).model == "device"


def test_path_length_is_kept(forge: GpuForge) -> None:
    device = forge.device(path_length=0)
    layer = certificate("layer", device)
    with pytest.raises(GpuChainUsageError, match="may not issue"):
        verify(forge, forge.leaf(layer).der, layer.der, *forge.chain(device=device)[1:])


@pytest.mark.parametrize(
    "changes",
    [
        {"fwids": []},
        {"fwids": [hopper_fwid(), tcg_fwid()]},
        {"fwids": [hopper_fwid(FWID[1:])]},
        {"fwids": [(gpu_forge.OID_HOPPER, FWID)]},
        {"fwids": [(gpu_forge.OID_TCG, b"")]},
        {"fwids": [(gpu_forge.OID_TCG, b"\x30\x03\x80\x06\x00")]},
        {"fwids": [(gpu_forge.OID_TCG, b"\x30\x81")]},
        {"fwids": [(gpu_forge.OID_TCG, b"\x31\x00")]},
        {"fwids": [(gpu_forge.OID_TCG, b"\x30\x00\x00")]},
        {"fwids": [(gpu_forge.OID_TCG, b"\x30\x82\x00\x00")]},
        {"fwids": [(gpu_forge.OID_TCG, b"\x30\x02\xa6\x00")]},
        {"fwids": [(gpu_forge.OID_TCG, b"\x31" + tcg_fwid()[1][1:])]},
        {"fwids": [(gpu_forge.OID_TCG, tcg_fwid()[1] + b"\x00")]},
        {"fwids": [tcg_fwid(tail=b"\x87")]},
        {"fwids": [tcg_fwid(tail=b"\x87\x80")]},
        {"fwids": [tcg_fwid(tail=b"\x87\x81")]},
        {"fwids": [tcg_fwid(second=b"", tail=b"\x87\x82" + bytes(0x82))]},
        {"fwids": [tcg_fwid(tail=b"\x87\x02\x00")]},
        {"fwids": [tcg_fwid(FWID[1:], second=b"")]},
        {"extensions": [(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b""), True)]},
        {"extensions": [(x509.NameConstraints([x509.DNSName("a")], None), True)]},
        {"key": ec.generate_private_key(ec.SECP256R1())},
        {"names": ["leaf", "leaf"]},
    ],
)
def test_leaves_of_another_kind(forge: GpuForge, changes: dict[str, Any]) -> None:
    with pytest.raises(GpuCertificateError):
        verify(forge, *forge.chain(forge.leaf(**changes)))


def test_another_signature_algorithm(forge: GpuForge) -> None:
    with pytest.raises(GpuCertificateError, match="SHA-384"):
        verify(forge, *forge.chain(forge.leaf(algorithm=hashes.SHA256())))


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_serial_numbers_are_positive(forge: GpuForge) -> None:
    """Re-signed by hand, as the library makes no such certificate."""
    made = x509.load_der_x509_certificate(forge.leaf(serial=1).der)
    tbs = made.tbs_certificate_bytes.replace(b"\x02\x01\x01", b"\x02\x01\x00", 1)
    signature = gpu_forge.key_of("device").sign(tbs, ec.ECDSA(hashes.SHA384()))
    algorithm = bytes.fromhex("300a06082a8648ce3d040303")
    body = tbs + algorithm + b"\x03" + bytes([len(signature) + 1]) + b"\0" + signature
    with pytest.raises(GpuCertificateError, match="serial number"):
        verify(forge, b"\x30\x82" + len(body).to_bytes(2, "big") + body, *forge.chain()[1:])


def test_no_certificate(forge: GpuForge) -> None:
    with pytest.raises(GpuCertificateError):
        verify(forge, b"", *forge.chain()[1:])


@pytest.mark.parametrize("position", range(4))
def test_every_certificate_is_signed(forge: GpuForge, position: int) -> None:
    chain = list(forge.chain())
    for at in range(0, len(chain[position]), 7):
        changed = bytearray(chain[position])
        changed[at] ^= 1
        with pytest.raises(GpuChainError):
            verify(forge, *chain[:position], bytes(changed), *chain[position + 1 :])


def test_validity_ends_are_included(forge: GpuForge) -> None:
    chain = forge.chain(forge.leaf(not_before_s=NOW - DAY, not_after_s=NOW + DAY))
    for now in (NOW - DAY, NOW + DAY):
        assert verify(forge, *chain, now=now).fwid == FWID
    with pytest.raises(GpuCertificateNotYetValidError):
        verify(forge, *chain, now=NOW - DAY - 1)
    with pytest.raises(GpuCertificateExpiredError):
        verify(forge, *chain, now=NOW + DAY + 1)


def test_the_root_has_to_be_valid_too(forge: GpuForge) -> None:
    root = certificate("GPU root", None, not_after_s=NOW - 1)
    with pytest.raises(GpuCertificateExpiredError):
        verify(forge, *forge.chain(), root=root.der)


def test_a_root_that_is_none(forge: GpuForge) -> None:
    for root in (b"", certificate("no CA", None, ca=False).der):
        with pytest.raises(RootRefusedError):
            verify(forge, *forge.chain(), root=root)


def test_the_pinned_root() -> None:
    assert hashlib.sha256(NVIDIA_ROOT).digest() == NVIDIA_ROOT_SHA256


def test_public_networks_take_the_pinned_root_only(forge: GpuForge) -> None:
    for network in (-239, -3):
        require_gpu_root_allowed(network, NVIDIA_ROOT)
        with pytest.raises(RootRefusedError):
            require_gpu_root_allowed(network, forge.root.der)
    require_gpu_root_allowed(-777, forge.root.der)
