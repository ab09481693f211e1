"""What verifies, and what remembering certificate and collateral checks may not change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import dcap_qvl
import pytest

from attestation.errors import (
    CollateralChainError,
    CollateralExpiredError,
    CollateralNotYetValidError,
    RootRefusedError,
)
from attestation.providers.software import SOFTWARE_MACHINE, SOFTWARE_TD
from attestation.types import PlatformFlag, TcbStatus
from attestation.verify import Verifier, verify_quote

DAY = 86_400


def test_the_untouched_world_is_up_to_date(forge: Any) -> None:
    verified = forge.verify()
    assert (verified.status, verified.advisories, verified.td) == (TcbStatus.UP_TO_DATE, (), SOFTWARE_TD)
    assert verified.platform == SOFTWARE_MACHINE
    assert verified.verified_s == forge.now


def test_other_roots_do_not_count(forge: Any) -> None:
    with pytest.raises(CollateralChainError):
        verify_quote(forge.quote(), forge.collateral(), now=forge.now, root=type(forge).new().root.der)


@pytest.mark.parametrize(("name", "is_ca"), [("Intel SGX Root CA", False), ("Another Root CA", True), ("X", False)])
def test_a_root_of_another_kind_is_the_configurations_fault(forge: Any, name: str, is_ca: bool) -> None:
    other = forge.certificate(name, None, is_ca=is_ca)
    for root in (other.der, b"garbage"):
        with pytest.raises(RootRefusedError):
            verify_quote(forge.quote(), forge.collateral(), now=forge.now, root=root)


def test_what_intel_adds_around_a_chain_is_accepted(forge: Any) -> None:
    chain = forge.chain()
    for form in (chain + b"\0", chain.replace(b"\n", b"\r\n"), chain.rstrip(b"\n")):
        assert forge.verify(forge.quote(pck_chain=form)).status is TcbStatus.UP_TO_DATE


def test_flags_of_the_platform_are_read(forge: Any) -> None:
    flags = frozenset({PlatformFlag.CACHED_KEYS, PlatformFlag.SMT_ENABLED})
    pck = forge.pck_of(forge.pck_issuer, replace(SOFTWARE_MACHINE, flags=flags))
    assert forge.verify(forge.quote_of(pck)).platform.flags == flags


def test_remembered_checks_still_look_at_the_time(forge: Any) -> None:
    verifier, raw, collateral = Verifier(forge.root.der), forge.quote(), forge.collateral()
    verifier.verify_quote(raw, collateral, now=forge.now)
    with pytest.raises(CollateralExpiredError):
        verifier.verify_quote(raw, collateral, now=forge.now + 2 * DAY)
    with pytest.raises(CollateralNotYetValidError):
        verifier.verify_quote(raw, collateral, now=forge.now - 2 * DAY)
    assert verifier.verify_quote(raw, collateral, now=forge.now + DAY).status is TcbStatus.UP_TO_DATE


def test_memory_is_bounded(forge: Any) -> None:
    verifier = Verifier(forge.root.der, collaterals_max=2, pcks_max=2)
    for number in range(5):
        raw = forge.quote_of(forge.pck_of(forge.pck_issuer))
        collateral = forge.collateral(lambda tree: tree.update(tcbEvaluationDataNumber=number))  # noqa: B023
        assert verifier.verify_quote(raw, collateral, now=forge.now).tcb_evaluation == number
    assert len(verifier._collaterals._values) == len(verifier._pcks._values) == 2


def test_dcap_qvl_accepts_what_the_forge_makes(forge: Any) -> None:
    for signed in (forge.signed(), forge.signed_v5()):
        raw, collateral = forge.quote(signed), forge.collateral()
        oracle = dcap_qvl.QuoteCollateralV3.from_json(collateral.to_json().decode())
        report = dcap_qvl.verify_with_root_ca(raw, oracle, forge.root.der, forge.now)
        assert report.status == forge.verify(raw, collateral).status
