"""`gpupool attest verify`, as a user or another program calls it: what it prints, its exit codes, every refusal."""

from __future__ import annotations

import base64
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from attest_place import NOW, REPORT_DATA, Place, make_place, run_json, table_text
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pool_fixture import POLICY_TEXT

from agent.attest.judging import Given, judge
from agent.attest.showing import Shown, recognise
from agent.attest.telling import outcome_text
from agent.cli import main
from agent.errors import OperationError
from attestation.errors import AttestationError
from attestation.policy import AttestationPolicy
from attestation.roots import INTEL_ROOT

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "vectors" / "tdx"
MANIFEST = json.loads((FOLDER / "manifest.json").read_text()) if FOLDER.is_dir() else {"quotes": []}
CASES = [(quote["file"], case) for quote in MANIFEST["quotes"] for case in quote["cases"]]
CONTRACT = ["status", "error", "advisories", "tcb_date", "appraisal"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return make_place(tmp_path, monkeypatch)


@pytest.mark.skipif(not CASES, reason="the TDX vectors (../shared/vectors/tdx) are not here")
@pytest.mark.parametrize(
    ("file", "case"), CASES, ids=[f"{Path(file).stem}-{case['collateral'][:8]}" for file, case in CASES]
)
def test_the_outcome_of_a_real_quote_is_the_manifests(
    capsys: pytest.CaptureFixture[str], file: str, case: dict[str, Any]
) -> None:
    collateral = FOLDER / "collateral" / case["collateral"]
    code, value = run_json(
        capsys, ["attest", "verify", str(FOLDER / file), "--collateral", str(collateral), "--at", str(case["now"])]
    )
    assert (value["status"], value["error"]) == (case["status"], case["error"])
    assert code == (0 if case["error"] is None else 1)
    assert value["is_intel_root"]


def test_the_first_keys_are_a_contract(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    code, value = run_json(capsys, place.verify())
    assert (code, list(value)[:5]) == (0, CONTRACT)
    assert [value[key] for key in CONTRACT] == ["UpToDate", None, [], "2027-01-14T08:00:00Z", None]
    assert value["td"]["report_data"] == REPORT_DATA.hex()
    assert value["collateral_valid_until"] == "2037-01-12T08:00:00Z"
    assert value["is_intel_root"] is False


def test_a_refusal_has_the_same_keys(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    code, value = run_json(capsys, place.verify("--at", str(NOW + 3651 * 86_400)))
    assert (code, list(value)[:5]) == (1, CONTRACT)
    assert [value[key] for key in CONTRACT] == [None, value["error"], [], None, None]
    assert value["fault"] == "collateral"
    assert value["message"]
    assert value["remedy"]


def test_a_policy_is_answered_rule_by_rule(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    code, value = run_json(
        capsys, place.verify("--policy", str(place / "policy.toml"), "--report-data", REPORT_DATA.hex())
    )
    appraisal = value["appraisal"]
    assert code == 0
    assert (appraisal["allowed"], appraisal["measurement"], appraisal["error"]) == (True, "software", None)
    assert appraisal["valid_until"] == "2027-01-16T08:00:00Z", "a day after the time of verification"
    assert appraisal["rules"][0] == {
        "rule": "report data",
        "seen": REPORT_DATA.hex(),
        "allowed": True,
        "checked": True,
        "error": None,
    }
    assert all(rule["allowed"] for rule in appraisal["rules"])


def test_report_data_that_nobody_names_is_not_checked(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    code, value = run_json(capsys, place.verify("--policy", str(place / "table.toml")))
    assert code == 0
    rules = value["appraisal"]["rules"]
    assert (rules[0]["seen"], rules[0]["allowed"], rules[0]["checked"]) == ("NOT checked", True, False)
    assert all(rule["checked"] for rule in rules[1:])


@pytest.mark.parametrize(
    ("changes", "error", "rule"),
    [
        ({"measurements": None}, "measurement_refused", "measurements"),
        ({"tcb_statuses": ["OutOfDate"]}, "tcb_status_refused", "TCB status"),
        ({"tcb_evaluation_min": 4_000_000}, "evaluation_number_too_low", "evaluation numbers"),
        ({"fmspcs": ["00" * 6]}, "fmspc_refused", "processor family"),
        ({"ppids_allowed": ["00" * 16]}, "ppid_refused", "machine"),
        ({"mr_seams": ["00" * 48]}, "mr_seam_refused", "TDX module"),
        ({"gpu_evidence_required": True}, "gpu_evidence_missing", "GPUs"),
    ],
)
def test_a_policys_refusal_leaves_the_status(
    place: Place, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], error: str, rule: str
) -> None:
    policy = place.write("strict.toml", table_text(**changes))
    code, value = run_json(capsys, place.verify("--policy", policy))
    assert (code, value["status"], value["error"], value["fault"]) == (1, "UpToDate", error, "policy")
    appraisal = value["appraisal"]
    assert (appraisal["allowed"], appraisal["error"], appraisal["valid_until"]) == (False, error, None)
    assert [each["rule"] for each in appraisal["rules"] if not each["allowed"]] == [rule]


def test_every_refused_rule_shows_and_the_first_is_the_verdict(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = place.write("strict.toml", table_text(fmspcs=["00" * 6], measurements=None))
    code, value = run_json(capsys, place.verify("--policy", policy, "--report-data", "00" * 64))
    assert (code, value["error"], value["fault"]) == (1, "report_data_mismatch", "sender")
    refused = [rule["error"] for rule in value["appraisal"]["rules"] if rule["error"]]
    assert refused == ["report_data_mismatch", "fmspc_refused", "measurement_refused"]


def test_report_data_is_held_against_the_quote_without_a_policy_too(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(place.verify("--report-data", REPORT_DATA.hex().upper())) == 0
    capsys.readouterr()
    code, value = run_json(capsys, place.verify("--report-data", "00" * 64))
    assert (code, value["status"], value["error"], value["appraisal"]) == (1, "UpToDate", "report_data_mismatch", None)


@pytest.mark.parametrize(
    ("quote", "collateral", "error"),
    [
        (b"", None, "quote_truncated"),
        (b"\4\0\2\0", None, "quote_truncated"),
        (bytes(65_000), None, "quote_too_long"),
        (bytes(70_000), None, "quote_too_long"),
        (bytes(1000), None, "quote_version"),
        (b"not a quote at all\x1b[2J", None, "quote_truncated"),
        (None, b"", "collateral_malformed"),
        (None, b"{}", "collateral_malformed"),
        (None, b"[" * 10_000, "collateral_malformed"),
        (None, b"\xff\xfe", "collateral_malformed"),
        (None, b"x" * 300_000, "collateral_malformed"),
    ],
)
def test_what_is_malformed_is_refused(
    place: Place, capsys: pytest.CaptureFixture[str], quote: bytes | None, collateral: bytes | None, error: str
) -> None:
    if quote is not None:
        place.write("quote.bin", quote)
    if collateral is not None:
        place.write("collateral.json", collateral)
    code, value = run_json(capsys, place.verify())
    assert (code, value["error"], value["status"]) == (1, error, None)
    assert main(place.verify()) == 1
    said = capsys.readouterr().out
    assert said.startswith("REFUSED at 2027-01-15T08:00:00Z")
    assert ("at fault    whoever made this file" in said) == (value["fault"] == "sender")
    assert all(each.isprintable() for each in said.replace("\n", ""))


def test_a_flipped_bit_is_refused(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    raw = bytearray(place.quote)
    raw[48 + 136] ^= 1  # MRTD
    place.write("quote.bin", bytes(raw))
    code, value = run_json(capsys, place.verify())
    assert (code, value["error"], value["fault"]) == (1, "quote_signature", "sender")
    assert "td" not in value, "no signature vouches for it"
    assert value["td_unverified"]["mr_td"] == raw[48 + 136 : 48 + 184].hex()


@pytest.mark.parametrize(
    ("quote", "collateral", "said"),
    [
        ("collateral.json", "collateral.json", "this looks like collateral, expected a quote: quote: "),
        ("root.der", "collateral.json", "this looks like a certificate, expected a quote: quote: "),
        ("quote.bin", "quote.bin", "this looks like a quote, expected collateral: collateral: "),
        ("quote.bin", "bundle", "this looks like a bundle of collateral, expected collateral: collateral: "),
    ],
)
def test_a_file_in_the_wrong_place_is_told_by_its_name(
    place: Place, capsys: pytest.CaptureFixture[str], quote: str, collateral: str, said: str
) -> None:
    place.write("bundle", b'{"update":"early","collateral":' + (place / "collateral.json").read_bytes() + b"}\n")
    code, value = run_json(capsys, place.verify(quote=quote, collateral=collateral))
    assert (code, value["fault"]) == (1, "sender" if quote != "quote.bin" else "collateral")
    assert value["message"].startswith(said)


def test_a_quote_of_another_root_is_refused(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["attest", "verify", str(place / "quote.bin"), "--collateral", str(place / "collateral.json")]
    code, value = run_json(capsys, arguments)
    assert (code, value["is_intel_root"]) == (1, True)
    assert value["error"] in ("collateral_chain_root", "pck_chain_root")


@pytest.mark.parametrize(
    "encode",
    [
        lambda raw: raw.hex().encode(),
        lambda raw: b"0x" + raw.hex().upper().encode() + b"\n",
        lambda raw: b"\n".join(raw.hex().encode()[i : i + 64] for i in range(0, 2 * len(raw), 64)),
        base64.b64encode,
        base64.encodebytes,
    ],
    ids=["hex", "0xHEX", "lines of hex", "base64", "lines of base64"],
)
def test_a_quote_may_come_as_text(place: Place, capsys: pytest.CaptureFixture[str], encode: Any) -> None:
    place.write("quote.bin", encode(place.quote))
    code, value = run_json(capsys, place.verify())
    assert (code, value["status"]) == (0, "UpToDate")


def test_a_quote_may_come_from_standard_input(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(place.quote)))
    arguments = place.verify()
    arguments[2] = "-"
    code, value = run_json(capsys, arguments)
    assert (code, value["status"]) == (0, "UpToDate")


def test_the_root_may_be_pem(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    pem = x509.load_der_x509_certificate((place / "root.der").read_bytes()).public_bytes(Encoding.PEM)
    code, value = run_json(capsys, place.verify("--root", place.write("root.pem", pem)))
    assert (code, value["status"]) == (0, "UpToDate")


@pytest.mark.parametrize("form", ["policy.toml", "table.toml", "bare.toml"])
def test_a_policy_may_be_whole_or_its_table_alone(place: Place, capsys: pytest.CaptureFixture[str], form: str) -> None:
    place.write("bare.toml", table_text())
    code, value = run_json(capsys, place.verify("--policy", str(place / form)))
    assert (code, value["appraisal"]["allowed"]) == (0, True)


def test_without_a_time_it_is_now(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: float(NOW + 60))
    arguments = place.verify()
    del arguments[arguments.index("--at") :][:2]
    code, value = run_json(capsys, arguments[: arguments.index("--at")])
    assert (code, value["time"]) == (0, "2027-01-15T08:01:00Z")


@pytest.mark.parametrize("text", ["2027-01-15T08:00:00Z", "2027-01-15 08:00:00", "2027-01-15T09:00:00+01:00", str(NOW)])
def test_a_time_is_in_seconds_or_iso_8601(place: Place, capsys: pytest.CaptureFixture[str], text: str) -> None:
    code, value = run_json(capsys, place.verify("--at", text))
    assert (code, value["time"]) == (0, "2027-01-15T08:00:00Z")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--gpu", "none"], "none: cannot be read: No such file or directory"),
        (["--gpu-nonce", "00" * 32], "--gpu-nonce: needs --gpu FILE, what the GPUs reported"),
        (["--gpu", "quote.bin", "--gpu-nonce", "00"], "--gpu-nonce 00: expected 64 hex digits"),
        (["--root", "-", "--policy", "-"], '"-" stands twice, and standard input can be read once'),
        (["--at", "2106-02-07T06:28:16Z"], "--at 2106-02-07T06:28:16Z: expected Unix seconds"),
        (["--at", "0001-01-01"], "--at 0001-01-01: expected Unix seconds"),
        (["--policy", "void.toml"], "void.toml: holds no policy"),
        (["--at", "yesterday"], "--at yesterday: expected Unix seconds, 0 to 4294967295"),
        (["--at=-1"], "--at -1: expected Unix seconds"),
        (["--at", "4294967296"], "--at 4294967296: expected Unix seconds"),
        (["--at", "1.5"], "--at 1.5: expected Unix seconds"),
        (["--report-data", "00"], "--report-data 00: expected 128 hex digits"),
        (["--report-data", "x" * 128], "expected 128 hex digits"),
        (["--root", "none"], "none: cannot be read: No such file or directory"),
        (["--root", "collateral.json"], "--root collateral.json: not a root certificate in DER or PEM\n"),
        (["--root", "broken.pem"], "--root broken.pem: not a root certificate in DER or PEM\n"),
        (["--root", "other.der"], "--root other.der: root: "),
        (["--policy", "none"], "none: cannot be read: No such file or directory"),
        (["--policy", "."], ".: cannot be read: Is a directory"),
        (["--policy", "quote.bin"], "quote.bin: not TOML: "),
        (["--policy", "unknown.toml"], "unknown.toml: attestation.colour: unknown key"),
        (["--policy", "half.toml"], "half.toml: timing.settle_delay_s: missing"),
        (["--policy", "long.toml"], "long.toml: longer than 262144 bytes"),
        (["--policy", "number.toml"], "number.toml: not TOML: "),
        (["--collateral", "none"], "none: cannot be read: No such file or directory"),
    ],
)
def test_wrong_usage_is_told_in_one_line(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(place.folder)
    place.write("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    place.write("other.der", (place / "platform" / "pck_chain.pem").read_text().split("-----\n-----")[0] + "-----\n")
    place.write("unknown.toml", "colour = 1\n")
    place.write("void.toml", "")
    place.write("half.toml", "[attestation]\n[timing]\n")
    place.write("long.toml", "#" * 300_000)
    place.write("number.toml", "x = " + "1" * 5000)
    assert main([*place.verify(), *arguments]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert said in output.err
    assert output.err.startswith("gpupool: ")
    assert output.err.count("\n") == 1


def test_people_read_the_verdict_first_then_what_it_rests_on(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(place.verify("--policy", str(place / "policy.toml"))) == 0
    said = capsys.readouterr().out
    assert said.startswith("VERIFIED at 2027-01-15T08:00:00Z, up to the given root, which is NOT Intel's, and allowed")
    assert "\n  status        UpToDate\n" in said
    assert "\n  ?        report data           NOT checked\n" in said
    assert "\n  ok       debug " in said
    assert '\n  allowed as "software"\n' in said
    assert f"report_data        {REPORT_DATA.hex()}" in said


def test_people_read_who_is_at_fault_and_what_to_do(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    policy = place.write("strict.toml", table_text(measurements=None))
    assert main(place.verify("--policy", policy)) == 1
    said = capsys.readouterr().out
    assert "although it is authentic\nwhy         measurements: MRTD " in said
    assert "\ncode        measurement_refused\nat fault    policy\nwhat to do  run an image that the pool lists" in said
    assert "\n  REFUSED  measurements " in said


def test_without_a_policy_nobody_reads_that_it_is_allowed(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(place.verify()) == 0
    first, _, _ = capsys.readouterr().out.partition("\n")
    assert first == (
        "AUTHENTIC at 2027-01-15T08:00:00Z, up to the given root, which is NOT Intel's, TCB status UpToDate; "
        "no --policy: nothing says that it is allowed"
    )


@pytest.mark.skipif(not CASES, reason="the TDX vectors (../shared/vectors/tdx) are not here")
def test_a_platform_that_is_out_of_date_says_so_first(capsys: pytest.CaptureFixture[str]) -> None:
    file, case = next((file, case) for file, case in CASES if case["status"] == "OutOfDate")
    collateral = FOLDER / "collateral" / case["collateral"]
    arguments = ["attest", "verify", str(FOLDER / file), "--collateral", str(collateral), "--at", str(case["now"])]
    assert main(arguments) == 0
    first, _, _ = capsys.readouterr().out.partition("\n")
    assert re.search(r"TCB status OutOfDate \([0-9]+ advisories\); no --policy", first)


def test_a_name_from_a_file_moves_no_cursor(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    policy = place.write("named.toml", table_text().replace('"software"', '"\\u001b[2Jsoft"'))
    assert main(place.verify("--policy", policy)) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "\\x1b[2Jsoft" in said


def test_an_empty_policy_denies(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert AttestationPolicy().measurements == ()
    whole = place.write("whole.toml", POLICY_TEXT + "measurements = []\n")
    code, value = run_json(capsys, place.verify("--policy", whole))
    assert (code, value["appraisal"]["error"]) == (1, "measurement_refused")


@given(st.binary(max_size=600), st.binary(max_size=600))
def test_no_bytes_make_it_crash(raw: bytes, collateral: bytes) -> None:
    outcome = judge(Given(raw=raw, collateral=collateral, root=INTEL_ROOT, now=NOW))
    assert outcome.error is not None
    try:
        assert isinstance(recognise(raw), Shown | None)
    except (AttestationError, OperationError) as error:
        assert str(error)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_changed_byte_makes_it_crash_or_print_an_escape(place: Place, data: st.DataObject) -> None:
    raw, collateral = bytearray(place.quote), bytearray((place / "collateral.json").read_bytes())
    for target in (raw, collateral):
        for _ in range(data.draw(st.integers(0, 4))):
            target[data.draw(st.integers(0, len(target) - 1))] = data.draw(st.sampled_from(b'\x00\x1b\x7f\xff{}"0A'))
    root = (place / "root.der").read_bytes()
    question = Given(raw=bytes(raw), collateral=bytes(collateral), root=root, now=NOW)
    said = outcome_text(question, judge(question))
    assert all(each.isprintable() for each in said.replace("\n", ""))
    for content in (bytes(raw), bytes(collateral)):
        try:
            assert isinstance(recognise(content), Shown | None)
        except (AttestationError, OperationError) as error:
            assert str(error)
