"""TCB evaluation: match a platform's TCB against TCB info and QE identity, converge the verdict.

Pure; both inputs are authentic by now (`attestation.collateral`), the JSON itself is read in `tcb_json`.

Rules (numbers of Intel's library where it has one)
1. Levels are tried in descending order of (SGX components, PCESVN, TDX components); the first one counts
   of which every component is at or below the platform's.            4.1.2.5.2.1
2. With TEE_TCB_SVN[1] > 0 the TDX components 0 and 1 belong to the module, not to the platform: they are
   compared with the module identity `TDX_xx` instead, xx = SVN[1], by SVN[0].    4.1.2.5.2.2
3. Revoked anywhere is revoked. A module or QE that is out of date makes the whole out of date; whether
   configuration is needed is kept.                                   4.1.2.5.2.4
4. A TD that was launched out of date, on a platform that by now runs a good TCB (TEE_TCB_SVN2), should be
   relaunched.                                                       4.1.2.5.18.4.3

Source: Intel PCS API v4, "Get TDX TCB Info" and "Get TD QE Identity"; the checks `EvaluateTcb` and
`TDRelaunchCheck` of Intel's quote verification library (confidential-computing.tee.dcap.qvl).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from attestation.certs import Validity
from attestation.errors import (
    QeLevelNotFoundError,
    TcbLevelNotFoundError,
    TcbRevokedError,
    TdxModuleLevelNotFoundError,
)
from attestation.types import PckPlatform, TcbStatus

_S = TcbStatus
_AGED = {
    _S.UP_TO_DATE: _S.OUT_OF_DATE,
    _S.SW_HARDENING_NEEDED: _S.OUT_OF_DATE,
    _S.CONFIGURATION_NEEDED: _S.OUT_OF_DATE_CONFIGURATION_NEEDED,
    _S.CONFIGURATION_AND_SW_HARDENING_NEEDED: _S.OUT_OF_DATE_CONFIGURATION_NEEDED,
}
"""Platform status -> what it becomes beside a component that is out of date. The keys are the good ones."""
_CONFIGURATION = frozenset(
    {_S.CONFIGURATION_NEEDED, _S.CONFIGURATION_AND_SW_HARDENING_NEEDED, _S.OUT_OF_DATE_CONFIGURATION_NEEDED}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A TCB status, the advisories behind it, and the oldest date of the levels that gave it."""

    status: TcbStatus
    advisories: frozenset[str]
    date_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IsvLevel:
    """A level of the TDX module or the quoting enclave."""

    isv_svn: int
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformLevel:
    """A level of the platform; components are 16 integers each."""

    sgx_svns: tuple[int, ...]
    pce_svn: int
    tdx_svns: tuple[int, ...]
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleIdentity:
    """A TDX module: signer (48 bytes), attributes and their mask (8 bytes), levels in descending order."""

    mr_signer: bytes
    attributes: bytes
    attributes_mask: bytes
    levels: tuple[IsvLevel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TcbInfo:
    """TCB info v3 for TDX. `modules` maps a module's major version (TEE_TCB_SVN[1]) to its identity."""

    fmspc: bytes
    pce_id: bytes
    evaluation: int
    base_module: ModuleIdentity
    modules: dict[int, ModuleIdentity]
    levels: tuple[PlatformLevel, ...]
    validity: Validity

    def module_of(self, tee_tcb_svn: bytes) -> ModuleIdentity | None:
        """The module identity that governs `tee_tcb_svn` (16 bytes), None if it is not listed."""
        return self.modules.get(tee_tcb_svn[1]) if tee_tcb_svn[1] else self.base_module


@dataclass(frozen=True, slots=True, kw_only=True)
class QeIdentity:
    """Identity of the TD quoting enclave (v2), levels in descending order."""

    evaluation: int
    misc_select: bytes
    misc_select_mask: bytes
    attributes: bytes
    attributes_mask: bytes
    mr_signer: bytes
    isv_prod_id: int
    levels: tuple[IsvLevel, ...]
    validity: Validity


def evaluate_tcb(
    info: TcbInfo, qe: QeIdentity, platform: PckPlatform, qe_isv_svn: int, svn: bytes, svn2: bytes | None
) -> Verdict:
    """Evaluate the TCB of a TD launched at `svn` on a platform now at `svn2` (16 bytes each).

    Raises:
        TcbLevelNotFoundError: platform, module or QE is below every listed level.
        TcbRevokedError: one of them is at a revoked level.
    """
    launch = _evaluate(info, qe, platform, qe_isv_svn, svn)
    if svn2 is None or svn2 == svn:
        return launch
    current = _evaluate(info, qe, platform, qe_isv_svn, svn2)
    if launch.status not in (_S.OUT_OF_DATE, _S.OUT_OF_DATE_CONFIGURATION_NEEDED) or current.status not in _AGED:
        return launch
    configuration = launch.status in _CONFIGURATION or current.status in _CONFIGURATION
    advised = _S.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED if configuration else _S.TD_RELAUNCH_ADVISED
    return Verdict(
        status=advised,
        advisories=launch.advisories | current.advisories,
        date_s=min(launch.date_s, current.date_s),
    )


def _evaluate(info: TcbInfo, qe: QeIdentity, platform: PckPlatform, qe_isv_svn: int, svn: bytes) -> Verdict:
    verdict = _match_platform(info.levels, platform, svn)
    components = [_match_isv(qe.levels, qe_isv_svn, "quoting enclave", QeLevelNotFoundError)]
    if svn[1] > 0:
        module = info.module_of(svn)
        if module is None:
            raise TdxModuleLevelNotFoundError(f"TCB: no TDX module of version {svn[1]} is listed")
        components.append(_match_isv(module.levels, svn[0], "TDX module", TdxModuleLevelNotFoundError))
    return _converge(verdict, components)


def _converge(platform: Verdict, components: list[Verdict]) -> Verdict:
    statuses = {part.status for part in components}
    if _S.REVOKED in statuses or platform.status is _S.REVOKED:
        raise TcbRevokedError("TCB: the level of platform, TDX module or quoting enclave is revoked")
    status: TcbStatus = platform.status
    if _S.OUT_OF_DATE in statuses:
        status = _AGED.get(status, status)
    return Verdict(
        status=status,
        advisories=platform.advisories.union(*(part.advisories for part in components)),
        date_s=min(platform.date_s, *(part.date_s for part in components)),
    )


def _match_platform(levels: Iterable[PlatformLevel], platform: PckPlatform, svn: bytes) -> Verdict:
    start = 2 if svn[1] > 0 else 0
    for level in levels:
        if (
            all(have >= need for have, need in zip(platform.sgx_svns, level.sgx_svns, strict=True))
            and platform.pce_svn >= level.pce_svn
            and all(have >= need for have, need in zip(svn[start:], level.tdx_svns[start:], strict=True))
        ):
            return level.verdict
    raise TcbLevelNotFoundError("TCB: the platform is below every listed level")


def _match_isv(levels: Iterable[IsvLevel], isv_svn: int, what: str, missing: type[TcbLevelNotFoundError]) -> Verdict:
    for level in levels:
        if isv_svn >= level.isv_svn:
            return level.verdict
    raise missing(f"TCB: the {what} is below every listed level")
