"""The edges of the rules for GPU evidence and handshakes; as `test_rule_edges`, for what `tools.mutate` found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from cryptography import x509

from attestation.errors.gpu import (
    GpuCertificateError,
    GpuChainFormError,
    GpuChainUsageError,
    GpuEvidenceMalformedError,
    GpuReportMalformedError,
)
from attestation.errors.providers import GuestCertificateFormError, HandshakeFormError
from attestation.gpu import GPU_EVIDENCE_BYTES_MAX, encode_gpu_evidence
from attestation.gpu_chain import CERTIFICATE_BYTES_MAX, CHAIN_MAX, GpuDevice, verify_gpu_chain
from attestation.gpu_policy import GpuGoldenTable, read_goldens
from attestation.gpu_report import GPU_REPORT_BYTES_MAX, parse_gpu_report
from attestation.guest_certificate import parse_guest_certificate
from attestation.handshake import read_cipher_suite
from attestation.providers.software_builders import build_usage
from tests.support.gpu_forge import FIELDS, NOW, GpuForge, certificate, report
from tests.support.ra_tls_guest import make_guest, message


@pytest.fixture(scope="module")
def gpus() -> GpuForge:
    return GpuForge.new()


def verify(gpus: GpuForge, *chain: bytes, **changes: Any) -> GpuDevice:
    settings: dict[str, Any] = {"root": gpus.root.der, "now": NOW}
    return verify_gpu_chain(chain, **(settings | changes))


def test_the_longest_chain_is_read(gpus: GpuForge) -> None:
    layer = certificate("layer 0", gpus.device())
    layers = [certificate("layer 1", layer), layer]
    chain = (gpus.leaf(layers[0]).der, *(it.der for it in layers), *gpus.chain()[1:])
    assert len(chain) == CHAIN_MAX
    assert verify(gpus, *chain).model == "device"


def test_the_longest_certificate_is_read(gpus: GpuForge) -> None:
    chain = gpus.chain()
    for length, error in [(CERTIFICATE_BYTES_MAX, GpuCertificateError), (CERTIFICATE_BYTES_MAX + 1, GpuChainFormError)]:
        with pytest.raises(error):
            verify(gpus, chain[0].ljust(length, b"\0"), *chain[1:])


def test_a_signature_with_unused_bits_is_refused(gpus: GpuForge) -> None:
    """Anybody can change this count, and the library does not look at it; the bit that does not count is zero."""
    leaf = next(leaf for leaf in (gpus.leaf() for _ in range(100)) if not leaf.der[-1] & 1)
    signature = x509.load_der_x509_certificate(leaf.der).signature
    changed = leaf.der[: -len(signature) - 1] + b"\x01" + signature
    with pytest.raises(GpuCertificateError):
        verify(gpus, changed, *gpus.chain()[1:])


def test_a_leaf_that_is_a_ca_of_nothing_is_still_a_ca(gpus: GpuForge) -> None:
    leaf = gpus.leaf(ca=True, path_length=0, usage=build_usage(data=True, certificates=True))
    with pytest.raises(GpuChainUsageError):
        verify(gpus, *gpus.chain(leaf))


def test_an_issuer_by_usage_alone_is_none(gpus: GpuForge) -> None:
    no_ca = (x509.BasicConstraints(ca=False, path_length=None), True)
    device = gpus.device(ca=False, usage=build_usage(certificates=True), extensions=[no_ca])
    with pytest.raises(GpuChainUsageError):
        verify(gpus, *gpus.chain(device=device))


def test_a_root_that_may_issue_no_cas_is_a_root_all_the_same() -> None:
    root = certificate("GPU root", None, path_length=0)
    family = certificate("GPU family", root)
    small = GpuForge(root=root, family=family, provisioner=certificate("GPU provisioner", family))
    with pytest.raises(GpuChainUsageError):
        verify(small, *small.chain())


def test_evidence_of_exactly_the_greatest_length_is_written(gpus: GpuForge) -> None:
    several = [gpus.gpu()] * 10
    last = several.pop()
    room = GPU_EVIDENCE_BYTES_MAX - len(encode_gpu_evidence([*several, last]))
    longest = replace(last, report=last.report + bytes(room))
    assert len(encode_gpu_evidence([*several, longest])) == GPU_EVIDENCE_BYTES_MAX
    with pytest.raises(GpuEvidenceMalformedError):
        encode_gpu_evidence([*several, replace(longest, report=longest.report + b"\0")])


def test_a_report_of_exactly_the_greatest_length_is_read() -> None:
    filled = GPU_REPORT_BYTES_MAX - len(report(fields=FIELDS | {99: b""}))
    assert parse_gpu_report(report(fields=FIELDS | {99: bytes(filled)})).driver == "550.90.07"
    with pytest.raises(GpuReportMalformedError):
        parse_gpu_report(report(fields=FIELDS | {99: bytes(filled + 1)}))


def test_the_last_block_has_the_number_254() -> None:
    assert list(parse_gpu_report(report(blocks={254: b"\x01" * 48})).measurements) == [254]
    table = msgspec.convert({"name": "a", "blocks": {"254": "01" * 48}}, GpuGoldenTable)
    assert list(read_goldens([table])[0].measurements) == [254]


def test_what_is_missing_at_the_end_of_a_message_is_said() -> None:
    with pytest.raises(HandshakeFormError, match="32 bytes expected, 31 left"):
        read_cipher_suite(message(2, bytes(33)))


def test_a_guests_signature_has_no_unused_bits(forge: Any) -> None:
    """The library takes it if the bit that does not count is zero."""
    made = (make_guest(lambda data: forge.quote(forge.signed(report_data=data))) for _ in range(100))
    whole = next(guest.certificate for guest in made if not guest.certificate[-1] & 1)
    changed = whole[:-65] + b"\x01" + whole[-64:]
    assert x509.load_der_x509_certificate(changed).signature == whole[-64:]
    with pytest.raises(GuestCertificateFormError):
        parse_guest_certificate(changed)
