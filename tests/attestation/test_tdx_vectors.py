"""Real Intel TDX quotes with Intel-signed collateral: the manifest's outcome, and dcap-qvl's beside ours."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import dcap_qvl
import pytest

from attestation.collateral import Collateral
from attestation.errors import AttestationError, QuoteMalformedError
from attestation.quote import parse_quote
from attestation.roots import INTEL_ROOT, INTEL_ROOT_SHA256
from attestation.verify import Verifier, verify_quote

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "vectors" / "tdx"
MANIFEST = json.loads((FOLDER / "manifest.json").read_text()) if FOLDER.is_dir() else {"quotes": []}
CASES = [(quote["file"], case) for quote in MANIFEST["quotes"] for case in quote["cases"]]
IDS = [f"{Path(file).stem}-{case['collateral'][:8]}" for file, case in CASES]

pytestmark = pytest.mark.skipif(not CASES, reason="the TDX vectors (../shared/vectors/tdx) are not here")

ORACLE_POLICY = ("Debug mode is enabled", "Invalid MR service TD")
"""What dcap-qvl refuses as a policy that cannot be switched off; here it is the pool's policy."""


def load(file: str, case: dict[str, Any]) -> tuple[bytes, Collateral]:
    return (FOLDER / file).read_bytes(), Collateral.from_json((FOLDER / "collateral" / case["collateral"]).read_bytes())


def outcome(verify: Any) -> tuple[str | None, str | None]:
    try:
        return str(verify().status), None
    except AttestationError as error:
        return None, error.code


@pytest.mark.parametrize(("file", "case"), CASES, ids=IDS)
def test_outcome_is_the_manifests(file: str, case: dict[str, Any]) -> None:
    raw, collateral = load(file, case)
    expected = (case["status"], case["error"])
    assert outcome(lambda: verify_quote(raw, collateral, now=case["now"], root=INTEL_ROOT)) == expected


def test_remembering_changes_no_outcome() -> None:
    verifier = Verifier(INTEL_ROOT, collaterals_max=3, pcks_max=2)
    for _ in range(2):
        for file, case in CASES:
            raw, collateral = load(file, case)
            expected = (case["status"], case["error"])
            assert outcome(lambda: verifier.verify_quote(raw, collateral, now=case["now"])) == expected  # noqa: B023


@pytest.mark.parametrize(("file", "case"), CASES, ids=IDS)
def test_dcap_qvl_agrees(file: str, case: dict[str, Any]) -> None:
    raw, collateral = load(file, case)
    status, error = outcome(lambda: verify_quote(raw, collateral, now=case["now"], root=INTEL_ROOT))
    try:
        report = dcap_qvl.verify(raw, dcap_qvl.QuoteCollateralV3.from_json(collateral.to_json().decode()), case["now"])
    except ValueError as refusal:
        assert error is not None or any(reason in str(refusal) for reason in ORACLE_POLICY)
    else:
        assert (status, error) == (report.status, None)


def test_no_mutant_is_accepted_that_dcap_qvl_refuses() -> None:
    accepted = [(file, case) for file, case in CASES if case["dcap_qvl_0_7_0"] == "ok"][:3]
    chooser = random.Random(20_240_601)
    verifier = Verifier(INTEL_ROOT)
    for file, case in accepted:
        raw, collateral = load(file, case)
        oracle_collateral = dcap_qvl.QuoteCollateralV3.from_json(collateral.to_json().decode())
        for _ in range(100):
            mutant = bytearray(raw)
            mutant[chooser.randrange(len(raw))] ^= 1 << chooser.randrange(8)
            try:
                ours = verifier.verify_quote(bytes(mutant), collateral, now=case["now"])
            except AttestationError:
                continue
            assert dcap_qvl.verify(bytes(mutant), oracle_collateral, case["now"]).status == ours.status


@pytest.mark.parametrize(("file", "case"), CASES[:1], ids=IDS[:1])
def test_every_time_outside_the_window_is_refused(file: str, case: dict[str, Any]) -> None:
    raw, collateral = load(file, case)
    for now, code in [(0, "certificate_not_yet_valid"), (2**31, "certificate_expired")]:
        assert outcome(lambda: verify_quote(raw, collateral, now=now, root=INTEL_ROOT)) == (None, code)  # noqa: B023


def test_every_truncation_is_malformed() -> None:
    raw = (FOLDER / CASES[0][0]).read_bytes()
    for length in range(0, len(raw), 7):
        with pytest.raises(QuoteMalformedError):
            parse_quote(raw[:length])


def test_the_pinned_root_is_intels() -> None:
    assert hashlib.sha256(INTEL_ROOT).digest() == INTEL_ROOT_SHA256


def test_collateral_survives_its_json_form() -> None:
    for path in sorted((FOLDER / "collateral").iterdir()):
        collateral = Collateral.from_json(path.read_bytes())
        again = Collateral.from_json(collateral.to_json())
        assert (again, again.digest) == (collateral, collateral.digest)
