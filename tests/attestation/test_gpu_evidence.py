"""GPU evidence as peers verify it: the container, the binding, the order of the checks."""

from __future__ import annotations

import contextlib
import hashlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.errors import AttestationError, EvidenceMalformedError
from attestation.errors.gpu import (
    GpuDuplicateError,
    GpuEvidenceMalformedError,
    GpuFwidMismatchError,
    GpuNonceMismatchError,
    GpuReportSignatureError,
    InvalidGpuEvidenceError,
)
from attestation.gpu import (
    GPU_EVIDENCE_BYTES_MAX,
    GpuEvidence,
    decode_gpu_evidence,
    encode_gpu_evidence,
    gpu_nonce,
    verify_gpu_evidence,
)
from tests.support.gpu_forge import FIELDS, FWID, NONCE, NOW, GpuForge, key_of, report, tcg_fwid

FORGE = GpuForge.new()
GPU = FORGE.gpu()
RAW = encode_gpu_evidence([GPU])


def verify(raw: bytes) -> None:
    verify_gpu_evidence(raw, nonce=NONCE, root=FORGE.root.der, now=NOW)


def another_gpu(name: str) -> GpuEvidence:
    device = FORGE.device(f"device {name}")
    leaf = FORGE.leaf(device, f"leaf {name}")
    return FORGE.gpu(FORGE.chain(leaf, device), report(key=leaf.key))


def test_genuine_gpus_verify_in_their_order() -> None:
    first, second = FORGE.verify(GPU, another_gpu("b"))
    assert (first.model, second.model) == ("device", "device b")
    assert (first.driver, first.vbios, first.fwid) == ("550.90.07", "96.00.9F.00.01", FWID)
    assert first.identity != second.identity


def test_the_identity_outlives_the_attestation_key() -> None:
    """New firmware means a new attestation key; the device stays the same."""
    leaf = FORGE.leaf(name="leaf of other firmware", fwids=[tcg_fwid(bytes(48))])
    (later,) = FORGE.verify(FORGE.gpu(FORGE.chain(leaf), report(key=leaf.key, fields=FIELDS | {20: bytes(48)})))
    assert later.identity == FORGE.verify()[0].identity


def test_a_report_for_another_agent() -> None:
    with pytest.raises(GpuNonceMismatchError):
        FORGE.verify(nonce=bytes(32))


def test_one_wrong_gpu_spoils_the_evidence() -> None:
    wrong = FORGE.gpu(raw=report(bytes(32)))
    with pytest.raises(GpuNonceMismatchError):
        FORGE.verify(another_gpu("b"), wrong)


def test_a_gpu_that_reports_twice() -> None:
    again = FORGE.leaf(name="second leaf")
    for twice in (GPU, FORGE.gpu(FORGE.chain(again), report(key=again.key))):
        with pytest.raises(GpuDuplicateError):
            FORGE.verify(GPU, twice)


def test_the_report_is_signed_by_the_leaf() -> None:
    for key in ("device", "another"):
        with pytest.raises(GpuReportSignatureError):
            FORGE.verify(FORGE.gpu(raw=report(key=key_of(key))))
    with pytest.raises(GpuReportSignatureError):
        FORGE.verify(FORGE.gpu(raw=report()[:-96] + bytes(96)))


def test_the_reports_firmware_is_the_leafs() -> None:
    with pytest.raises(GpuFwidMismatchError):
        FORGE.verify(FORGE.gpu(raw=report(fields=FIELDS | {20: bytes(48)})))


def test_an_old_report_that_names_no_firmware_has_the_leafs() -> None:
    raw = report(fields={kind: value for kind, value in FIELDS.items() if kind != 20})
    assert FORGE.verify(FORGE.gpu(raw=raw))[0].fwid == FWID


def test_every_changed_byte_is_refused() -> None:
    for at in range(0, len(RAW), 5):
        changed = bytearray(RAW)
        changed[at] ^= 1
        with pytest.raises(InvalidGpuEvidenceError):
            verify(bytes(changed))


def test_every_shortening_is_refused() -> None:
    for length in range(len(RAW)):
        with pytest.raises(GpuEvidenceMalformedError):
            verify(RAW[:length])


PARTS = (list(GPU.chain), GPU.report)


@pytest.mark.parametrize(
    "raw",
    [
        RAW + b"\0",
        msgspec.msgpack.encode([1, []]),
        msgspec.msgpack.encode([1, [PARTS] * 17]),
        msgspec.msgpack.encode([1, [[[b""] * 7, b""]]]),
        msgspec.msgpack.encode([1, [PARTS], None]),
        msgspec.msgpack.encode([1, [[*PARTS, b""]]]),
        msgspec.msgpack.encode([1, [["text", b""]]]),
        msgspec.msgpack.encode({"version": 1, "gpus": [PARTS]}),
        msgspec.msgpack.encode([True, [PARTS]]),
        b"\x93",
        b"",
    ],
)
def test_other_containers(raw: bytes) -> None:
    with pytest.raises(GpuEvidenceMalformedError):
        verify(raw)


def test_another_version_and_too_much_are_refused_for_what_they_are() -> None:
    with pytest.raises(GpuEvidenceMalformedError, match="version 2"):
        verify(msgspec.msgpack.encode([2, [PARTS]]))
    with pytest.raises(GpuEvidenceMalformedError, match="at most 65536 bytes"):
        verify(bytes(GPU_EVIDENCE_BYTES_MAX + 1))


def test_a_container_has_one_encoding() -> None:
    long_int, long_array = RAW.replace(b"\x92\x01", b"\x92\xcc\x01", 1), b"\xdc\x00\x02" + RAW[1:]
    short = RAW.index(b"\xc5")
    long_bytes = RAW[:short] + b"\xc6\x00\x00" + RAW[short + 1 :]
    for raw in (long_int, long_array, long_bytes):
        assert raw != RAW
        assert msgspec.msgpack.decode(raw) == msgspec.msgpack.decode(RAW)
        with pytest.raises(GpuEvidenceMalformedError, match="canonical"):
            decode_gpu_evidence(raw)


def test_what_is_encoded_is_bounded() -> None:
    big = GpuEvidence(chain=GPU.chain, report=bytes(GPU_EVIDENCE_BYTES_MAX))
    for gpus in ([], [GPU] * 17, [big]):
        with pytest.raises(GpuEvidenceMalformedError):
            encode_gpu_evidence(gpus)


def test_eight_gpus_of_real_size_fit() -> None:
    """Sizes of a Hopper GPU (4,117 and 2,833 bytes) and of a Blackwell GPU (4,140 and 2,889)."""
    for report_bytes, chain in ((4117, (897, 596, 686, 654)), (4140, (887, 659, 690, 653))):
        gpu = GpuEvidence(chain=tuple(map(bytes, chain)), report=bytes(report_bytes))
        assert len(encode_gpu_evidence([gpu] * 9)) <= GPU_EVIDENCE_BYTES_MAX


def test_the_nonce_binds_node_key_and_anchor() -> None:
    key, anchor = bytes(range(32)), bytes(range(32, 64))
    assert gpu_nonce(key, anchor) == hashlib.sha256(b"gpupool/gpu/1" + key + anchor).digest()
    assert gpu_nonce(anchor, key) != gpu_nonce(key, anchor)
    for wrong in ((key[1:], anchor), (key, anchor + b"\0")):
        with pytest.raises(EvidenceMalformedError):
            gpu_nonce(*wrong)


def test_every_error_says_what_to_do() -> None:
    def below(branch: type[AttestationError]) -> set[type[AttestationError]]:
        return {branch} | {leaf for child in branch.__subclasses__() for leaf in below(child)}

    errors = below(InvalidGpuEvidenceError)
    assert {error.fault for error in errors} == {"sender"}
    assert len({error.code for error in errors}) == len(errors)


JUNK: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 300) | st.binary(max_size=20) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(JUNK.map(msgspec.msgpack.encode) | st.binary(max_size=100))
def test_any_bytes_decode_or_are_refused(raw: bytes) -> None:
    with contextlib.suppress(GpuEvidenceMalformedError):
        assert encode_gpu_evidence(decode_gpu_evidence(raw)) == raw


@given(
    st.lists(st.tuples(st.lists(st.binary(max_size=40), max_size=6), st.binary(max_size=40)), min_size=1, max_size=16)
)
def test_what_is_encoded_decodes(gpus: list[tuple[list[bytes], bytes]]) -> None:
    evidence = tuple(GpuEvidence(chain=tuple(chain), report=report) for chain, report in gpus)
    assert decode_gpu_evidence(encode_gpu_evidence(evidence)) == evidence
