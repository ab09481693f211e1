"""Read the JSON of TCB info and QE identity.

The signature over the verbatim bytes is checked before they get here (`attestation.collateral`); they are
still read strictly, because the verdict must be the same everywhere: no key twice, exact types, integers
only, hex of exact length, known statuses only. Unknown keys are skipped: Intel adds some from time to time.
Levels are sorted here, as Intel's library does, whatever order they stand in.

Source: Intel PCS API v4, "Get TDX TCB Info" (v3) and "Get TD QE Identity" (v2).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, NoReturn, TypeVar

import msgspec

from attestation.certs import Validity
from attestation.errors import (
    TcbInfoDuplicateKeyError,
    TcbInfoExpiredError,
    TcbInfoFormError,
    TcbInfoKindError,
    TcbInfoNotYetValidError,
    TcbStatusUnknownError,
)
from attestation.pck import SVN_COUNT
from attestation.tcb import IsvLevel, ModuleIdentity, PlatformLevel, QeIdentity, TcbInfo, Verdict
from attestation.types import TcbStatus

LEVELS_MAX = 256

_COMPONENT_STATUSES = frozenset({TcbStatus.UP_TO_DATE, TcbStatus.OUT_OF_DATE, TcbStatus.REVOKED})
_PLATFORM_STATUSES = frozenset(TcbStatus) - {
    TcbStatus.TD_RELAUNCH_ADVISED,
    TcbStatus.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED,
}


def parse_tcb_info(text: bytes) -> TcbInfo:
    """Read TCB info (v3, TDX, tcbType 0), raise `TcbInfoError` if it is anything else."""
    raw = _convert(text, _TcbInfo, "TCB info", ("TDX", 3))
    if raw.tcb_type != 0:
        raise TcbInfoKindError(f"TCB info: type {raw.tcb_type}, expected 0")
    modules: dict[int, ModuleIdentity] = {}
    for identity in raw.tdx_module_identities:
        if not re.fullmatch(r"TDX_[0-9A-Fa-f]{2}", identity.id):
            raise TcbInfoFormError(f"TCB info: module id {identity.id!r:.20}")
        version = int(identity.id[4:], 16)
        if version in modules:
            raise TcbInfoDuplicateKeyError(f"TCB info: module {identity.id} stands twice")
        modules[version] = _module(identity, identity.tcb_levels)
    return TcbInfo(
        fmspc=_hex(raw.fmspc, 6),
        pce_id=_hex(raw.pce_id, 2),
        evaluation=raw.tcb_evaluation_data_number,
        base_module=_module(raw.tdx_module, []),
        modules=modules,
        levels=_platform_levels(raw.tcb_levels),
        validity=_validity(raw, "TCB info"),
    )


def parse_qe_identity(text: bytes) -> QeIdentity:
    """Read a QE identity (v2, TD_QE), raise `TcbInfoError` if it is anything else."""
    raw = _convert(text, _QeIdentity, "QE identity", ("TD_QE", 2))
    return QeIdentity(
        evaluation=raw.tcb_evaluation_data_number,
        misc_select=_hex(raw.miscselect, 4),
        misc_select_mask=_hex(raw.miscselect_mask, 4),
        attributes=_hex(raw.attributes, 16),
        attributes_mask=_hex(raw.attributes_mask, 16),
        mr_signer=_hex(raw.mrsigner, 32),
        isv_prod_id=raw.isvprodid,
        levels=_isv_levels(raw.tcb_levels),
        validity=_validity(raw, "QE identity"),
    )


_U8 = Annotated[int, msgspec.Meta(ge=0, le=0xFF)]
_U16 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
_U32 = Annotated[int, msgspec.Meta(ge=0, le=0xFFFFFFFF)]
_Advisories = Annotated[list[Annotated[str, msgspec.Meta(max_length=64)]], msgspec.Meta(max_length=1024)]


class _Component(msgspec.Struct):
    svn: _U8


_Components = Annotated[list[_Component], msgspec.Meta(min_length=SVN_COUNT, max_length=SVN_COUNT)]


class _IsvTcb(msgspec.Struct):
    isvsvn: _U16


class _ModuleTcb(msgspec.Struct):
    isvsvn: _U8
    """A byte of TEE_TCB_SVN is what it is compared with."""


class _PlatformTcb(msgspec.Struct):
    sgxtcbcomponents: _Components
    pcesvn: _U16
    tdxtcbcomponents: _Components


class _Rated(msgspec.Struct, rename="camel"):
    tcb_date: str
    tcb_status: str
    advisory_ids: _Advisories = msgspec.field(name="advisoryIDs", default_factory=list)


class _IsvLevel(_Rated, kw_only=True):
    tcb: _IsvTcb


class _PlatformLevel(_Rated, kw_only=True):
    tcb: _PlatformTcb


class _ModuleLevel(_Rated, kw_only=True):
    tcb: _ModuleTcb


_IsvLevels = Annotated[list[_IsvLevel], msgspec.Meta(min_length=1, max_length=LEVELS_MAX)]
_ModuleLevels = Annotated[list[_ModuleLevel], msgspec.Meta(min_length=1, max_length=LEVELS_MAX)]


class _Module(msgspec.Struct, rename="camel"):
    mrsigner: str
    attributes: str
    attributes_mask: str


class _ModuleIdentity(_Module, kw_only=True, rename="camel"):
    id: str
    tcb_levels: _ModuleLevels


class _Kind(msgspec.Struct):
    id: str
    version: int


class _Document(msgspec.Struct, rename="camel", kw_only=True):
    issue_date: str
    next_update: str
    tcb_evaluation_data_number: _U32


class _TcbInfo(_Document, rename="camel", kw_only=True):
    fmspc: str
    pce_id: str
    tcb_type: int
    tdx_module: _Module
    tdx_module_identities: Annotated[list[_ModuleIdentity], msgspec.Meta(max_length=255)] = []
    tcb_levels: Annotated[list[_PlatformLevel], msgspec.Meta(min_length=1, max_length=LEVELS_MAX)]


class _QeIdentity(_Document, rename="camel", kw_only=True):
    miscselect: str
    miscselect_mask: str
    attributes: str
    attributes_mask: str
    mrsigner: str
    isvprodid: _U16
    tcb_levels: _IsvLevels


_T = TypeVar("_T")


def _convert(text: bytes, form: type[_T], what: str, kind: tuple[str, int]) -> _T:
    """Read `text` as `form`; its kind (id, version) is looked at first, since another kind has other keys."""
    try:
        tree = json.loads(text.decode(), object_pairs_hook=_unique, parse_float=_no_number, parse_constant=_no_number)
        found = msgspec.convert(tree, _Kind, strict=True)
        if (found.id, found.version) != kind:
            raise TcbInfoKindError(
                f"{what}: id {found.id!r:.20} version {found.version}, expected {kind[0]}, {kind[1]}"
            )
        return msgspec.convert(tree, form, strict=True)
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise TcbInfoFormError(f"{what}: {error}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) != len(pairs):
        raise TcbInfoDuplicateKeyError("TCB info or QE identity: a key stands twice")
    return tree


def _no_number(text: str) -> NoReturn:
    raise TcbInfoFormError(f"TCB info or QE identity: {text!r:.20} is not an integer")


def _module(raw: _Module, levels: list[_ModuleLevel]) -> ModuleIdentity:
    return ModuleIdentity(
        mr_signer=_hex(raw.mrsigner, 48),
        attributes=_hex(raw.attributes, 8),
        attributes_mask=_hex(raw.attributes_mask, 8),
        levels=_isv_levels(levels),
    )


def _isv_levels(raw: Sequence[_IsvLevel | _ModuleLevel]) -> tuple[IsvLevel, ...]:
    levels = [IsvLevel(isv_svn=level.tcb.isvsvn, verdict=_verdict(level, _COMPONENT_STATUSES)) for level in raw]
    return tuple(sorted(levels, key=lambda level: level.isv_svn, reverse=True))


def _platform_levels(raw: list[_PlatformLevel]) -> tuple[PlatformLevel, ...]:
    levels = [
        PlatformLevel(
            sgx_svns=tuple(component.svn for component in level.tcb.sgxtcbcomponents),
            pce_svn=level.tcb.pcesvn,
            tdx_svns=tuple(component.svn for component in level.tcb.tdxtcbcomponents),
            verdict=_verdict(level, _PLATFORM_STATUSES),
        )
        for level in raw
    ]
    return tuple(sorted(levels, key=lambda level: (level.sgx_svns, level.pce_svn, level.tdx_svns), reverse=True))


def _verdict(raw: _Rated, allowed: frozenset[TcbStatus]) -> Verdict:
    if raw.tcb_status not in allowed:
        raise TcbStatusUnknownError(
            f"TCB info or QE identity: status {raw.tcb_status!r:.60} is none of {sorted(allowed)}"
        )
    return Verdict(
        status=TcbStatus(raw.tcb_status), advisories=frozenset(raw.advisory_ids), date_s=_date(raw.tcb_date, "tcbDate")
    )


def _validity(raw: _Document, what: str) -> Validity:
    return Validity(
        what=what,
        not_before_s=_date(raw.issue_date, "issueDate"),
        not_after_s=_date(raw.next_update, "nextUpdate"),
        early=TcbInfoNotYetValidError,
        late=TcbInfoExpiredError,
    )


def _hex(text: str, length: int) -> bytes:
    if not re.fullmatch(r"[0-9A-Fa-f]*", text) or len(text) != 2 * length:
        raise TcbInfoFormError(f"TCB info or QE identity: {text!r:.100}: expected {length} bytes in hex")
    return bytes.fromhex(text)


def _date(text: str, key: str) -> int:
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", text):
        raise TcbInfoFormError(f"TCB info or QE identity: {key}: {text!r:.40}: expected YYYY-MM-DDThh:mm:ssZ")
    try:
        return int(datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp())
    except ValueError as error:
        raise TcbInfoFormError(f"TCB info or QE identity: {key}: {error}") from error
