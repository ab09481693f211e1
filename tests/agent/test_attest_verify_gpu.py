"""`gpupool attest verify --gpu`: GPU evidence, or a report with its certificates, beside a quote."""

from __future__ import annotations

from pathlib import Path

import pytest
from attest_place import Place, make_place, run_json, table_text
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from gpu_forge import BLOCKS, NONCE, GpuForge

from agent.attest import judging
from agent.cli import main
from attestation.gpu import decode_gpu_evidence, encode_gpu_evidence


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return make_place(tmp_path, monkeypatch)


def gpu_files(place: Place, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options of a policy that wants one GPU, and of the evidence of one, under a root of its own."""
    forge = GpuForge.new()
    monkeypatch.setattr(judging, "NVIDIA_ROOT", forge.root.der)
    golden = {"name": "H100", "blocks": {"3": BLOCKS[3].hex()}}
    policy = place.write("gpu.toml", table_text(gpu_evidence_required=True, gpu_measurements=[golden]))
    return ["--policy", policy, "--gpu", place.write("gpu", encode_gpu_evidence([forge.gpu()]).hex())]


def test_gpu_evidence_is_verified_beside_the_quote(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = gpu_files(place, monkeypatch)
    for more, checked in ([], False), (["--gpu-nonce", NONCE.hex()], True):
        code, value = run_json(capsys, place.verify(*options, *more))
        assert (code, value["appraisal"]["allowed"], value["gpu_nonce_checked"]) == (0, True, checked)
        (rule,) = [each for each in value["appraisal"]["rules"] if each["rule"] == "GPUs"]
        seen = "1 verified" if checked else "1 verified; nonce NOT checked"
        assert (rule["seen"], rule["allowed"], rule["checked"]) == (seen, True, checked)
        assert main(place.verify(*options, *more)) == 0
        said = capsys.readouterr().out
        assert f"\n  {'ok' if checked else '?':7}  GPUs                  {seen}\n" in said


def test_gpus_are_shown_without_a_policy_too(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, *options = gpu_files(place, monkeypatch)
    code, value = run_json(capsys, place.verify(*options))
    (gpu,) = value["gpus"]
    assert (code, value["appraisal"], gpu["driver"], gpu["vbios"]) == (0, None, "550.90.07", "96.00.9F.00.01")
    assert (len(gpu["identity"]), len(gpu["fwid"])) == (64, 96)
    assert main(place.verify(*options)) == 0
    said = capsys.readouterr().out
    assert "\nGPUs\n  nonce  NOT checked: --gpu-nonce says what it must be\n" in said
    assert gpu["identity"] in said
    assert run_json(capsys, place.verify())[1]["gpus"] is None


@pytest.mark.parametrize("has_root", [True, False])
def test_a_report_may_come_with_its_certificates(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, has_root: bool
) -> None:
    monkeypatch.chdir(place.folder)
    forge = GpuForge.new()
    monkeypatch.setattr(judging, "NVIDIA_ROOT", forge.root.der)
    (gpu,) = decode_gpu_evidence(encode_gpu_evidence([forge.gpu()]))
    ders = [*gpu.chain, *([forge.root.der] if has_root else [])]
    pems = [x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in ders]
    place.write("report", gpu.report.hex())
    place.write("chain.pem", b"\n".join(pems))
    options = ["--gpu", "report", "--gpu-chain", "chain.pem", "--gpu-nonce", NONCE.hex()]
    code, value = run_json(capsys, place.verify(*options))
    assert (code, len(value["gpus"])) == (0, 1)
    place.write("chain.pem", b"".join(pems[1:]))
    code, value = run_json(capsys, place.verify(*options))
    assert (code, value["status"], value["fault"]) == (1, "UpToDate", "sender")
    for missing, said in (
        (["--gpu", "report"], "--gpu report: this is a GPU report, not evidence: name its certificates with --gpu-c"),
        (["--gpu", "quote.bin", "--gpu-chain", "chain.pem"], "--gpu-chain: is for a GPU report alone"),
        (["--gpu", "report", "--gpu-chain", "report"], "--gpu-chain report: certificates: not whole certificates"),
        (["--gpu-chain", "chain.pem"], "--gpu-chain: needs --gpu FILE"),
    ):
        assert main(place.verify(*missing)) == 2
        assert capsys.readouterr().err.startswith(f"gpupool: {said}")


@pytest.mark.parametrize(
    ("more", "error"),
    [
        (["--gpu-nonce", "00" * 32], "gpu_nonce_mismatch"),
        (["--gpu", "quote.bin"], "gpu_evidence_malformed"),
    ],
)
def test_bad_gpu_evidence_is_refused_although_the_quote_is_authentic(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, more: list[str], error: str
) -> None:
    monkeypatch.chdir(place.folder)
    code, value = run_json(capsys, place.verify(*gpu_files(place, monkeypatch), *more))
    assert (code, value["status"], value["error"], value["fault"]) == (1, "UpToDate", error, "sender")
