"""The SGX extension of a PCK certificate: which machine it is, and the TCB that Intel certified.

Strict DER: definite, minimal lengths, minimal integers, nothing left over, no OID twice. Entries under
OIDs that are not known here are skipped, since the certificate is Intel's; the known ones are demanded.

Source: Intel SGX PCK Certificate and CRL Profile Specification, section 1.3.5.
"""

from __future__ import annotations

from collections.abc import Iterator

from attestation.errors import PckExtensionError, PckExtensionMissingError
from attestation.types import PckPlatform, PlatformFlag

SVN_COUNT = 16

_PREFIX = bytes.fromhex("2a864886f84d010d01")
"""1.2.840.113741.1.13.1, without tag and length."""
_PPID, _TCB, _PCE_ID, _FMSPC, _SGX_TYPE, _CONFIGURATION = b"\x01", b"\x02", b"\x03", b"\x04", b"\x05", b"\x07"
_PCE_SVN, _CPU_SVN = b"\x02\x11", b"\x02\x12"
_FLAGS = {
    b"\x07\x01": PlatformFlag.DYNAMIC_PLATFORM,
    b"\x07\x02": PlatformFlag.CACHED_KEYS,
    b"\x07\x03": PlatformFlag.SMT_ENABLED,
}
_BOOLEAN, _INTEGER, _OCTETS, _OID, _ENUMERATED, _SEQUENCE = 0x01, 0x02, 0x04, 0x06, 0x0A, 0x30
_BOOLEANS = {b"\x00": False, b"\xff": True}


def parse_sgx_extension(der: bytes | None) -> PckPlatform:
    """Read the value of extension 1.2.840.113741.1.13.1 (None: the certificate has none).

    Raises:
        PckExtensionMissingError: there is none, or an entry is missing.
        PckExtensionError: not strict DER, or an entry out of range.
    """
    if der is None:
        raise PckExtensionMissingError("PCK: no SGX extension")
    entries = _entries(_only(der, _SEQUENCE))
    tcb = _entries(_value(entries, _TCB, _SEQUENCE))
    if _unsigned(_value(entries, _SGX_TYPE, _ENUMERATED)) > 2:
        raise PckExtensionError("PCK: SGX type: expected 0 to 2")
    svns = tuple(_unsigned(_value(tcb, bytes([2, 1 + i]), _INTEGER)) for i in range(SVN_COUNT))
    pce_svn = _unsigned(_value(tcb, _PCE_SVN, _INTEGER))
    if max(svns) > 0xFF or pce_svn > 0xFFFF:
        raise PckExtensionError("PCK: a TCB component or the PCE's SVN is out of range")
    # Intel writes the components a second time, in one piece: readers of either must see the same TCB.
    if _octets(tcb, _CPU_SVN, SVN_COUNT) != bytes(svns):
        raise PckExtensionError("PCK: the CPU's SVN is not that of the TCB components")
    return PckPlatform(
        ppid=_octets(entries, _PPID, 16),
        fmspc=_octets(entries, _FMSPC, 6),
        pce_id=_octets(entries, _PCE_ID, 2),
        sgx_svns=svns,
        pce_svn=pce_svn,
        flags=_flags(entries),
    )


def _flags(entries: dict[bytes, tuple[int, bytes]]) -> frozenset[PlatformFlag]:
    if _CONFIGURATION not in entries:
        return frozenset()
    configuration = _entries(_value(entries, _CONFIGURATION, _SEQUENCE))
    flags = set()
    for oid, flag in _FLAGS.items():
        if oid in configuration:
            value = _BOOLEANS.get(_value(configuration, oid, _BOOLEAN))
            if value is None:
                raise PckExtensionError(f"PCK: {flag}: not a DER boolean")
            if value:
                flags.add(flag)
    return frozenset(flags)


def _entries(sequence: bytes) -> dict[bytes, tuple[int, bytes]]:
    """Map the OID below the prefix -> (tag, value) for a sequence of SEQUENCE { OID, value }."""
    entries: dict[bytes, tuple[int, bytes]] = {}
    for tag, item in _elements(sequence):
        parts = list(_elements(item)) if tag == _SEQUENCE else []
        if len(parts) != 2 or parts[0][0] != _OID or not parts[0][1].startswith(_PREFIX):
            raise PckExtensionError("PCK: SGX extension: not a sequence of OID and value")
        oid = parts[0][1][len(_PREFIX) :]
        if oid in entries:
            raise PckExtensionError("PCK: SGX extension: an OID stands twice")
        entries[oid] = parts[1]
    return entries


def _value(entries: dict[bytes, tuple[int, bytes]], oid: bytes, tag: int) -> bytes:
    found = entries.get(oid)
    name = ".".join(map(str, oid))
    if found is None:
        raise PckExtensionMissingError(f"PCK: SGX extension: no entry {name}")
    if found[0] != tag:
        raise PckExtensionError(f"PCK: SGX extension: entry {name}: of another type")
    return found[1]


def _octets(entries: dict[bytes, tuple[int, bytes]], oid: bytes, length: int) -> bytes:
    value = _value(entries, oid, _OCTETS)
    if len(value) != length:
        raise PckExtensionError(f"PCK: SGX extension: entry {oid[0]}: {len(value)} bytes, expected {length}")
    return value


def _unsigned(value: bytes) -> int:
    if not value or value[0] & 0x80 or (len(value) > 1 and value[0] == 0 and not value[1] & 0x80):
        raise PckExtensionError("PCK: SGX extension: an integer is negative or not minimal")
    return int.from_bytes(value, "big")


def _only(data: bytes, tag: int) -> bytes:
    elements = list(_elements(data))
    if len(elements) != 1 or elements[0][0] != tag:
        raise PckExtensionError("PCK: SGX extension: not one sequence")
    return elements[0][1]


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (tag, value) of each DER element of `data`; single-byte tags, lengths below 64 KiB."""
    at = 0
    while at < len(data):
        header = data[at : at + 4]
        if len(header) < 2 or header[0] & 0x1F == 0x1F:
            raise PckExtensionError("PCK: SGX extension: truncated, or a long tag")
        length, size = _length(header)
        at += size
        if at + length > len(data):
            raise PckExtensionError("PCK: SGX extension: truncated")
        yield header[0], data[at : at + length]
        at += length


def _length(header: bytes) -> tuple[int, int]:
    """Return (length of the value, bytes of tag and length); `header` is up to 4 bytes from the tag on."""
    first = header[1]
    if first < 0x80:
        return first, 2
    octets = first & 0x7F
    length = int.from_bytes(header[2 : 2 + octets], "big")
    if octets not in (1, 2) or length < (0x80 if octets == 1 else 0x100):
        raise PckExtensionError("PCK: SGX extension: a length is indefinite, too long or not minimal")
    return length, 2 + octets
