"""`gpupool attest show`: every kind of file is recognised by its content; nothing of it counts as verified."""

from __future__ import annotations

import base64
import tomllib
from pathlib import Path
from typing import Any

import pytest
import trio
from attest_place import NOW, REPORT_DATA, Place, make_place, run_json
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from gpu_forge import BLOCKS, GpuForge, report
from ra_tls_guest import make_guest

from agent.cli import main
from attestation.collateral import Collateral
from attestation.collateral_store import CollateralStore
from attestation.gpu import encode_gpu_evidence
from attestation.policy import AttestationPolicy
from attestation.providers.software import SOFTWARE_MEASUREMENT, SOFTWARE_TD

VECTORS = Path(__file__).resolve().parents[3] / "shared" / "vectors"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return make_place(tmp_path, monkeypatch)


def show(place: Place, capsys: pytest.CaptureFixture[str], content: bytes) -> dict[str, Any]:
    """What is shown of a file, which is the same for people."""
    path = place.write("file", content)
    code, value = run_json(capsys, ["attest", "show", path])
    assert (code, value["verified"]) == (0, False)
    assert main(["attest", "show", path]) == 0
    assert capsys.readouterr().out.startswith(f"{value['kind']}: nothing here is verified\n\n")
    return dict(value)


def pinned(value: dict[str, Any]) -> AttestationPolicy:
    """The policy that the shown table makes; one that names GPUs has to demand some."""
    table = tomllib.loads(value["pin"])["attestation"]
    return AttestationPolicy.from_mapping(table | {"gpu_evidence_required": "gpu_measurements" in table})


@pytest.mark.parametrize("encode", [bytes, lambda raw: raw.hex().encode(), base64.encodebytes])
def test_a_quote(place: Place, capsys: pytest.CaptureFixture[str], encode: Any) -> None:
    value = show(place, capsys, encode(place.quote))
    assert (value["kind"], value["version"], value["bytes"]) == ("TDX quote", 4, len(place.quote))
    assert value["td"]["report_data"] == REPORT_DATA.hex()
    assert value["td"]["td_attributes_set"] == ["SEPT_VE_DISABLE"]
    assert value["td"]["xfam_set"][:3] == ["X87", "SSE", "AVX"]
    assert value["pck"]["fmspc"] == b"SWTDX\0".hex()
    assert value["pck"]["ca"] == "Intel SGX PCK Platform CA"
    assert [each["name"] for each in value["pck"]["certificates"]][-1] == "Intel SGX Root CA"


def test_what_a_quote_measures_can_be_pinned_as_it_is_shown(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    (measurement,) = pinned(show(place, capsys, place.quote)).measurements
    assert measurement.matches(SOFTWARE_TD)
    assert measurement.rtmrs == SOFTWARE_MEASUREMENT.rtmrs


def test_a_quote_whose_certificates_are_broken_is_shown_all_the_same(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = place.quote.replace(b"-----BEGIN CERT", b"-----BEGIN\x1b[2J ", 1)
    value = show(place, capsys, broken)
    assert value["pck"]["error"] == "pck_chain_form"
    assert value["td"]["report_data"] == REPORT_DATA.hex()


def test_collateral(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    value = show(place, capsys, (place / "collateral.json").read_bytes())
    assert value["kind"] == "collateral"
    assert value["tcb_info"]["fmspc"] == b"SWTDX\0".hex()
    assert value["tcb_info"]["issued"] == "2027-01-14T08:00:00Z"
    assert value["pck_crl"]["issuer"] == "Intel SGX PCK Platform CA"
    assert value["root_crl"] | {"next_update": None} == {
        "issuer": "Intel SGX Root CA",
        "issued": "2027-01-14T08:00:00Z",
        "next_update": None,
        "revoked": 0,
    }


def test_collateral_with_a_broken_part_shows_the_others(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    good = Collateral.from_json((place / "collateral.json").read_bytes())
    broken = good.to_json().replace(good.pck_crl.hex().encode(), b"00").replace(b'\\"version\\":3', b'\\"version\\":9')
    value = show(place, capsys, broken)
    assert value["pck_crl"]["error"] == "crl_malformed"
    assert value["tcb_info"]["error"] == "tcb_info_kind"
    assert value["root_crl"]["revoked"] == 0


def test_a_bundle(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    store = CollateralStore(place / "store", root=place.platform.root)
    bundle = place.write("bundle", (place / "collateral.json").read_bytes())
    assert main(["attest", "show", bundle]) == 0, "a line of collateral alone is collateral"
    line = b'{"update":"early","collateral":' + (place / "collateral.json").read_bytes() + b"}\n"
    assert store.import_bundle(line, NOW).kept
    capsys.readouterr()
    value = show(place, capsys, store.export())
    assert value["kind"] == "bundle of collateral"
    assert [(each["update"], each["tcb_info"]["fmspc"]) for each in value["collateral"]] == [
        ("early", b"SWTDX\0".hex())
    ]


@pytest.mark.parametrize("encoding", [Encoding.DER, Encoding.PEM])
def test_the_certificate_of_a_guest(place: Place, capsys: pytest.CaptureFixture[str], encoding: Encoding) -> None:
    guest = make_guest(lambda report_data: trio.run(place.platform.quote, report_data).quote)
    value = show(place, capsys, x509.load_der_x509_certificate(guest.certificate).public_bytes(encoding))
    assert value["kind"] == "certificate of an attested guest"
    assert value["key"] == guest.public.hex()
    assert value["quote"]["td"]["mr_td"] == SOFTWARE_TD.mr_td.hex()
    assert pinned(value).measurements[0].matches(SOFTWARE_TD)


@pytest.mark.parametrize("encode", [bytes, lambda raw: raw.hex().encode()])
def test_a_gpus_report(place: Place, capsys: pytest.CaptureFixture[str], encode: Any) -> None:
    value = show(place, capsys, encode(report()))
    assert (value["kind"], value["driver"]) == ("GPU report", "550.90.07")
    (golden,) = pinned(value).gpu_measurements
    assert dict(golden.measurements).items() <= {i: frozenset({each}) for i, each in BLOCKS.items()}.items()


def test_a_report_that_measures_nothing_has_nothing_to_pin(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    value = show(place, capsys, report(blocks={1: bytes(48)}))
    assert (value["blocks"], value["pin"]) == ({}, None)


def test_gpu_evidence(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    forge = GpuForge.new()
    value = show(place, capsys, encode_gpu_evidence([forge.gpu(), forge.gpu()]))
    assert value["kind"] == "GPU evidence"
    assert [gpu["certificates"] for gpu in value["gpus"]] == [4, 4]
    assert len(pinned(value).gpu_measurements) == 1


@pytest.mark.skipif(not VECTORS.is_dir(), reason="the vectors (../shared/vectors) are not here")
def test_what_is_real(capsys: pytest.CaptureFixture[str]) -> None:
    code, value = run_json(capsys, ["attest", "show", str(VECTORS / "nvidia" / "hopperAttestationReport.txt")])
    assert (code, value["vbios"]) == (0, "96.00.9F.00.01")
    assert pinned(value).gpu_measurements
    for path in sorted((VECTORS / "tdx" / "quotes").iterdir()):
        code, value = run_json(capsys, ["attest", "show", str(path)])
        assert (code, value["kind"]) == (0, "TDX quote")
        assert value["pck"].get("error", "pck_chain_form") == "pck_chain_form", "one has a chain of another form"
    for path in sorted((VECTORS / "tdx" / "collateral").iterdir()):
        code, value = run_json(capsys, ["attest", "show", str(path)])
        assert (code, value["kind"]) == (0, "collateral")
        assert "error" not in str(value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "neither a quote, collateral, a bundle"),
        (b"hello", "neither a quote, collateral, a bundle"),
        (b"\x7fELF\x1b[2J", "neither a quote, collateral, a bundle"),
        (b"\4\0", "quote: "),
        (b"\3\0" + bytes(500), "quote: version 3, expected 4 or 5"),
        (b"{}", "collateral: "),
        (b"{" * 5000, "collateral: "),
        (b"-----BEGIN CERTIFICATE-----", "certificates: not whole certificates in PEM"),
        (b"-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n", "certificates: the PEM is not base64"),
        (b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n" * 17, "certificates: 17, at most 16 are read"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "certificates: not whole certificates"),
        (b"\x30\x82\x01\x1b[2J", "certificate: not an X.509 certificate"),
        (b"\x30\x06\x06\x08\x2b\x06\x01\x04\x01\xe0\x39\x01", "guest certificate: "),
        (b"\x11\xe0", "GPU report: "),
        (b"\x92\x01\xff", "GPU evidence: "),
        (bytes(4 * 1024 * 1024 + 1), "more than 4194304 bytes"),
    ],
)
def test_what_is_nothing_is_told_in_one_line(
    place: Place, capsys: pytest.CaptureFixture[str], content: bytes, said: str
) -> None:
    path = place.write("file", content)
    assert main(["attest", "show", path]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.removeprefix("gpupool: ").removeprefix(f"{path}: ").startswith(said)
    assert output.err.count("\n") == 1
    assert "\x1b" not in output.err


def test_a_bundle_with_a_bad_line_or_too_many_says_so(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    line = b'{"update":"early","collateral":' + (place / "collateral.json").read_bytes() + b"}\n"
    path = place.write("file", line + b"{}\n")
    assert main(["attest", "show", path]) == 1
    assert "gpupool: bundle: Object missing" in capsys.readouterr().err
    assert main(["attest", "show", place.write("file", line * 65)]) == 1
    assert "gpupool: bundle: 65 entries, expected 1 to 64; export the bundle anew" in capsys.readouterr().err


def test_what_is_malformed_has_a_code(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    code, value = run_json(capsys, ["attest", "show", place.write("file", b"\4\0")])
    assert (code, value["error"], value["fault"]) == (1, "quote_truncated", "sender")


@pytest.mark.parametrize("encoding", [Encoding.DER, Encoding.PEM])
def test_a_certificate(place: Place, capsys: pytest.CaptureFixture[str], encoding: Encoding) -> None:
    root = x509.load_der_x509_certificate((place / "root.der").read_bytes())
    value = show(place, capsys, root.public_bytes(encoding))
    assert (value["kind"], value["key"], value["pin"]) == ("certificate", "EC secp256r1", None)
    assert "CN=Intel SGX Root CA" in value["subject"]
    assert value["subject"] == value["issuer"]
    assert value["not_after"]


def test_a_chain_of_certificates(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    value = show(place, capsys, (place / "platform" / "pck_chain.pem").read_bytes())
    assert value["kind"] == "chain of certificates"
    assert ["PCK Certificate" in each["subject"] for each in value["certificates"]] == [True, False, False]


@pytest.mark.parametrize("what", ["quote", "gpu"])
def test_pin_prints_the_table_and_nothing_else(place: Place, capsys: pytest.CaptureFixture[str], what: str) -> None:
    path = place.write("file", place.quote if what == "quote" else report())
    assert main(["attest", "pin", path, "--name", 'image "1"']) == 0
    said = capsys.readouterr().out
    policy = pinned({"pin": said})
    names = [each.name for each in policy.measurements] + [each.name for each in policy.gpu_measurements]
    assert names == ['image "1"']
    code, value = run_json(capsys, ["attest", "pin", path, "--name", 'image "1"'])
    assert (code, value["verified"], value["pin"].rstrip()) == (0, False, said.rstrip())


def test_what_measures_nothing_is_not_pinned(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attest", "pin", str(place / "collateral.json"), "--name", "x"]) == 1
    assert "collateral: it measures nothing that could be pinned" in capsys.readouterr().err
    assert main(["attest", "pin", str(place / "quote.bin"), "--name", ""]) == 2
    assert "--name: 0 characters, expected 1 to 128" in capsys.readouterr().err


def test_a_missing_file_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attest", "show", str(tmp_path / "none")]) == 2
    assert "cannot be read: No such file or directory" in capsys.readouterr().err
