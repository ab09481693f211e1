"""Golden values: what a genuine GPU may run. Decides by the pool's policy, and fails closed.

Rules
1. Every GPU must match one golden entry in everything that the entry pins; no entries allow no GPU.
2. An entry pins at least one measurement block. Versions alone would be the firmware's own claim.
3. A pinned block must be measured: zeros, which stand for "nothing", are neither pinned nor accepted.
4. Protected PCIe (links between GPUs not encrypted, switches trusted and not attested here) is by opt-in.
5. A GPU that the policy denies by identity is refused: the answer to a broken one, as revocation is not
   checked.

Where golden values come from: from a report of a GPU and driver that the operators trust (`golden_of`), or
from NVIDIA's reference manifests (RIM) for driver and VBIOS, whose indexes are those of the blocks less one.
Which blocks stay the same from boot to boot and from GPU to GPU is best found by comparing a few.

Source: NVIDIA/nvtrust, local_gpu_verifier (comparison with the RIMs).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from attestation.errors import GpuMeasurementRefusedError, InvalidPolicyError
from attestation.errors.gpu import GpuCountError, GpuDeniedError
from attestation.gpu import VerifiedGpu

BLOCK_VIDEO_DECODER = 36
"""NVIDIA's verifier does not compare it while the first video decoder is off; `golden_of` leaves it out."""

_ANY = "any"
_BYTES = 48
_UNMEASURED = bytes(_BYTES)
_INDEX = re.compile(r"[1-9][0-9]{0,2}")
_DRIVER = re.compile(r"[0-9]{1,5}(\.[0-9]{1,5}){1,3}")
_VBIOS = re.compile(r"[0-9A-F]{2}(\.[0-9A-F]{2}){4}")


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuGolden:
    """One kind of GPU that may run. An empty set of drivers, VBIOSes or firmware ids stands for "any".

    `measurements` block index (1 to 254) -> the values that it may have, 48 bytes each; `drivers` as
    "550.90.07", `vbioses` as "96.00.9F.00.01", `fwids` 48 bytes.
    """

    name: str
    measurements: Mapping[int, frozenset[bytes]]
    drivers: frozenset[str] = frozenset()
    vbioses: frozenset[str] = frozenset()
    fwids: frozenset[bytes] = frozenset()
    protected_pcie: bool = False

    def differences(self, gpu: VerifiedGpu) -> tuple[str, ...]:
        """Name everything in which `gpu` is not as this entry wants it; empty if it matches."""
        found = []
        if self.drivers and gpu.driver not in self.drivers:
            found.append(f"driver {gpu.driver}")
        if self.vbioses and gpu.vbios not in self.vbioses:
            found.append(f"VBIOS {gpu.vbios}")
        if self.fwids and gpu.fwid not in self.fwids:
            found.append(f"firmware id {gpu.fwid.hex()[:16]}...")
        if gpu.protected_pcie and not self.protected_pcie:
            found.append("protected PCIe")
        found += [
            f"block {index}"
            for index, allowed in sorted(self.measurements.items())
            if gpu.measurements.get(index, _UNMEASURED) not in allowed
        ]
        return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class AppraisedGpu:
    """A GPU that is allowed, by the golden entry of that name."""

    gpu: VerifiedGpu
    golden: str


def appraise_gpus(
    gpus: Sequence[VerifiedGpu],
    goldens: Sequence[GpuGolden],
    *,
    gpus_min: int,
    denied: Collection[bytes] = frozenset(),
) -> tuple[AppraisedGpu, ...]:
    """Allow all of `gpus`, in their order, or raise. `gpus_min` is how many there must be, `denied` identities.

    Raises:
        GpuCountError: fewer than `gpus_min`.
        GpuDeniedError: one is denied.
        GpuMeasurementRefusedError: one matches no entry; the message names the nearest and what differs.
    """
    if len(gpus) < gpus_min:
        raise GpuCountError(f"GPUs: {len(gpus)} in confidential mode, the policy demands {gpus_min}")
    return tuple(_appraise_gpu(gpu, goldens, denied) for gpu in gpus)


def _appraise_gpu(gpu: VerifiedGpu, goldens: Sequence[GpuGolden], denied: Collection[bytes]) -> AppraisedGpu:
    what = f"GPU {gpu.identity.hex()[:16]}... ({gpu.model}, driver {gpu.driver}, VBIOS {gpu.vbios})"
    if gpu.identity in denied:
        raise GpuDeniedError(f"{what}: denied")
    if not goldens:
        raise GpuMeasurementRefusedError(f"{what}: the policy has no golden entry")
    nearest = min(goldens, key=lambda golden: len(golden.differences(gpu)))
    if differences := nearest.differences(gpu):
        raise GpuMeasurementRefusedError(f'{what}: nearest is "{nearest.name}", differs in {", ".join(differences)}')
    return AppraisedGpu(gpu=gpu, golden=nearest.name)


def golden_of(gpus: Sequence[VerifiedGpu], *, name: str) -> dict[str, Any]:
    """Return the table form of an entry that all of `gpus` (at least one, whose operator trusts them) match.

    Pins their drivers, VBIOSes and firmware ids, and each block that is measured and the same in all of them.

    Raises:
        InvalidPolicyError: no block is the same in all of them, or there is none.
    """
    common = set.intersection(*(set(gpu.measurements.items()) for gpu in gpus)) if gpus else set()
    blocks = {i: frozenset({v}) for i, v in common if v != _UNMEASURED and i != BLOCK_VIDEO_DECODER}
    if not blocks:
        raise InvalidPolicyError("GPU golden entry: no block is measured and the same in all GPUs")
    return write_golden(
        GpuGolden(
            name=name,
            measurements=blocks,
            drivers=frozenset(gpu.driver for gpu in gpus),
            vbioses=frozenset(gpu.vbios for gpu in gpus),
            fwids=frozenset(gpu.fwid for gpu in gpus),
            protected_pcie=any(gpu.protected_pcie for gpu in gpus),
        )
    )


# --- the table form ---

_Text = Annotated[str, msgspec.Meta(max_length=128)]
_Texts = _Text | Annotated[list[_Text], msgspec.Meta(max_length=64)]


class GpuGoldenTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`GpuGolden` in TOML's types: bytes are hex, one value may stand without its list."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    blocks: Annotated[dict[str, _Texts], msgspec.Meta(max_length=254)]
    driver: _Texts = _ANY
    vbios: _Texts = _ANY
    fwid: _Texts = _ANY
    protected_pcie: bool = False


def read_goldens(tables: Sequence[GpuGoldenTable]) -> tuple[GpuGolden, ...]:
    """Read the entries of a policy, in their order.

    Raises:
        InvalidPolicyError: a value out of form, an entry that pins no block, or two of one name.
    """
    if len({table.name for table in tables}) != len(tables):
        raise InvalidPolicyError("attestation policy: gpu_measurements: two entries of one name")
    return tuple(_read_golden(table) for table in tables)


def write_golden(golden: GpuGolden) -> dict[str, Any]:
    """Return the table form, every key present, in one order: equal entries give equal tables."""
    return {
        "name": golden.name,
        "driver": sorted(golden.drivers) or _ANY,
        "vbios": sorted(golden.vbioses) or _ANY,
        "fwid": sorted(fwid.hex() for fwid in golden.fwids) or _ANY,
        "protected_pcie": golden.protected_pcie,
        "blocks": {str(i): sorted(v.hex() for v in values) for i, values in sorted(golden.measurements.items())},
    }


def _read_golden(table: GpuGoldenTable) -> GpuGolden:
    where = f'attestation policy: gpu_measurements "{table.name}"'
    if not table.blocks:
        raise InvalidPolicyError(f"{where}: pins no block, and so no firmware")
    return GpuGolden(
        name=table.name,
        measurements={_read_index(where, key): _read_block(where, key, texts) for key, texts in table.blocks.items()},
        drivers=_read_versions(f"{where}: driver", table.driver, _DRIVER),
        vbioses=_read_versions(f"{where}: vbios", table.vbios, _VBIOS),
        fwids=frozenset() if table.fwid == _ANY else _read_digests(f"{where}: fwid", table.fwid),
        protected_pcie=table.protected_pcie,
    )


def _read_index(where: str, key: str) -> int:
    if not _INDEX.fullmatch(key) or int(key) > 254:
        raise InvalidPolicyError(f"{where}: block {key!r:.20}: expected 1 to 254")
    return int(key)


def _read_block(where: str, key: str, texts: str | list[str]) -> frozenset[bytes]:
    values = _read_digests(f"{where}: block {key}", texts)
    if _UNMEASURED in values:
        raise InvalidPolicyError(f"{where}: block {key}: zeros, which mean that it is not measured")
    return values


def _read_versions(where: str, texts: str | list[str], form: re.Pattern[str]) -> frozenset[str]:
    if texts == _ANY:
        return frozenset()
    versions = frozenset(text.upper() for text in _list_of(where, texts))
    for version in versions:
        if not form.fullmatch(version):
            raise InvalidPolicyError(f"{where}: {version!r:.40} is no version; copy it from `gpupool attest show`")
    return versions


def _read_digests(where: str, texts: str | list[str]) -> frozenset[bytes]:
    try:
        values = frozenset(bytes.fromhex(text) for text in _list_of(where, texts))
    except ValueError as error:
        raise InvalidPolicyError(f"{where}: not hex") from error
    if any(len(value) != _BYTES for value in values):
        raise InvalidPolicyError(f"{where}: not {_BYTES} bytes")
    return values


def _list_of(where: str, texts: str | list[str]) -> list[str]:
    if not texts:
        raise InvalidPolicyError(f'{where}: an empty list allows nothing; "any" is the word for no restriction')
    return [texts] if isinstance(texts, str) else texts
