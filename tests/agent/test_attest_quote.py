"""`gpupool attest quote` and `gpu`: what a machine can prove itself with, and what it says where it cannot."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pynvml
import pytest
import trio
from attest_place import REPORT_DATA, Place, make_place, run_json
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from fake_nvml import FakeGpu, FakeNvml
from gpu_forge import GpuForge, report
from ra_tls_guest import make_guest, serve, server_context

from agent.cli import main
from attestation.gpu import decode_gpu_evidence
from attestation.gpu_report import parse_gpu_report
from attestation.handshake import verify_handshake
from attestation.quote import parse_quote

CONFIG = f"""
data_dir = "data"
[pool]
network = -217
address = "0:{"ab" * 32}"
policy_file = "policy.toml"
[chain]
global_config = "global.config.json"
[engine]
url = "http://127.0.0.1:8000/metrics"
[attestation]
provider = "software"
software_dir = "platform"
software_root_file = "root.der"
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return make_place(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def fake_gpu() -> FakeGpu:
    forge = GpuForge.new()
    chain = b"".join(
        x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in (*forge.chain(), forge.root.der)
    )
    return FakeGpu(chain=chain, report=report())


def quote(place: Place, *more: str) -> list[str]:
    return ["attest", "quote", "--provider", "software", "--software-dir", str(place / "platform"), *more]


def test_a_quote_goes_to_standard_output_and_what_is_in_it_to_standard_error(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(quote(place, "--report-data", REPORT_DATA.hex())) == 0
    output = capsys.readouterr()
    assert parse_quote(bytes.fromhex(output.out.strip())).td.report_data == REPORT_DATA
    assert output.err.startswith("gpupool: made a quote of ")
    assert all(line.startswith("gpupool: ") for line in output.err.splitlines())
    assert f"report_data        {REPORT_DATA.hex()}" in output.err


def test_a_quote_in_a_file_verifies(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(place / "new.bin")
    assert main(quote(place, "--out", out, "--report-data", REPORT_DATA.hex())) == 0
    output = capsys.readouterr()
    assert output.out == ""
    assert f"wrote {out}" in output.err
    assert main(place.verify("--report-data", REPORT_DATA.hex(), quote="new.bin")) == 0


def test_report_data_that_nobody_names_is_random(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    values = [run_json(capsys, quote(place))[1] for _ in range(2)]
    assert values[0]["challenge"] != values[1]["challenge"]
    for value in values:
        assert parse_quote(bytes.fromhex(value["quote"])).td.report_data.hex() == value["challenge"]
        assert (value["handshake"], value["gpu_evidence"]) == (None, None)


def test_without_a_provider_the_config_says_which(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    config = place.write("agent.toml", CONFIG)
    code, value = run_json(capsys, ["attest", "quote", "--config", config])
    assert code == 0
    assert parse_quote(bytes.fromhex(value["quote"])).td.mr_td


def test_gpus_report_over_the_same_challenge(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, fake_gpu: FakeGpu
) -> None:
    FakeNvml(gpus=[fake_gpu]).install(monkeypatch)
    assert main(quote(place, "--gpu", "--out", str(place / "new.bin"), "--report-data", REPORT_DATA.hex())) == 0
    (gpu,) = decode_gpu_evidence((place / "new.bin.gpu").read_bytes())
    assert parse_gpu_report(gpu.report).nonce == REPORT_DATA[:32]
    capsys.readouterr()
    code, value = run_json(capsys, ["attest", "show", str(place / "new.bin.gpu")])
    assert (code, value["kind"]) == (0, "GPU evidence")


def test_nothing_is_written_if_the_gpus_cannot_report(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, fake_gpu: FakeGpu
) -> None:
    FakeNvml(gpus=[fake_gpu], cc_feature=pynvml.NVML_CC_SYSTEM_FEATURE_DISABLED).install(monkeypatch)
    assert main(quote(place, "--gpu", "--out", str(place / "new.bin"))) == 1
    assert "gpupool: GPU: not in confidential mode; turn " in capsys.readouterr().err
    assert not (place / "new.bin").exists()


async def test_a_guest_gives_its_quote_with_a_handshake(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    made = await place.platform.quote(bytes(64))
    assert made.handshake is None
    quotes: dict[bytes, bytes] = {}

    def quote_over(report_data: bytes) -> bytes:
        return quotes.setdefault(report_data, trio.from_thread.run(place.platform.quote, report_data).quote)

    guest = await trio.to_thread.run_sync(make_guest, quote_over)
    async with trio.open_nursery() as nursery:
        handler = functools.partial(serve, context=server_context(guest))
        listeners = await nursery.start(functools.partial(trio.serve_tcp, handler, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        arguments = ["attest", "quote", "--provider", "cocoon", "--address", f"127.0.0.1:{port}", "--no-work"]
        arguments += ["--report-data", REPORT_DATA.hex(), "--json"]
        assert await trio.to_thread.run_sync(main, arguments) == 0
        nursery.cancel_scope.cancel()
    value = json.loads(capsys.readouterr().out)
    assert verify_handshake(bytes.fromhex(value["handshake"]), REPORT_DATA).quote.hex() == value["quote"]


def test_a_machine_that_is_no_tdx_guest_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["attest", "quote", "--provider", "configfs", "--tsm-dir", str(tmp_path / "none")]
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"gpupool: configfs-tsm: {tmp_path / 'none'} does not exist; ")
    assert "run this inside a TDX guest" in said
    assert said.count("\n") == 1
    code, value = run_json(capsys, arguments)
    assert (code, value["error"], value["fault"]) == (1, "tsm_missing", "local")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--provider", "cocoon"], 2, "--address is missing: expected HOST:PORT of a worker's TLS port"),
        (["--provider", "cocoon", "--address", "worker"], 2, "--address worker: expected HOST:PORT"),
        (["--provider", "cocoon", "--address", "127.0.0.1:0"], 2, "--address 127.0.0.1:0: expected HOST:PORT"),
        (["--provider", "software"], 2, "--software-dir is missing"),
        (["--provider", "software", "--software-dir", "none"], 1, "none/root.der: No such file or directory"),
        (["--config", "none.toml"], 2, "none.toml: missing"),
        (["--provider", "software", "--software-dir", "platform", "--gpu"], 2, "--gpu: needs --out FILE"),
        (["--provider", "software", "--tsm-dir", "x"], 2, "--tsm-dir: is for --provider configfs"),
        (["--provider", "software", "--address", "x"], 2, "--address: is for --provider cocoon"),
        (["--provider", "configfs", "--no-work"], 2, "--no-work: is for --provider cocoon"),
        (["--provider", "configfs", "--software-dir", "platform"], 2, "--software-dir: is for --provider software"),
        (["--address", "127.0.0.1:1"], 2, "--address: is for --provider cocoon"),
        (["--report-data", "0"], 2, "--report-data 0: expected 128 hex digits"),
        (["--provider", "software", "--software-dir", "platform", "--out", "."], 2, ".: cannot be written: Is a dir"),
    ],
)
def test_wrong_usage_is_told_in_one_line(
    place: Place,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(place.folder)
    assert main(["attest", "quote", *arguments]) == code
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"gpupool: {said}")
    assert output.err.count("\n") == 1


@pytest.mark.parametrize(
    ("settings", "code", "mode", "said"),
    [
        ({}, 0, "on", "on: they can report"),
        ({"cc_feature": pynvml.NVML_CC_SYSTEM_FEATURE_DISABLED}, 1, "off", "NOT in confidential mode"),
        ({"devtools": pynvml.NVML_CC_SYSTEM_DEVTOOLS_MODE_ON}, 1, "devtools", "NOT usable"),
        ({"environment": pynvml.NVML_CC_SYSTEM_ENVIRONMENT_SIM}, 1, "simulated", "NOT the production environment"),
        (
            {"fail": {"nvmlSystemGetConfComputeState": pynvml.NVML_ERROR_NOT_SUPPORTED}},
            1,
            "unsupported",
            "NOT in confidential mode",
        ),
    ],
)
def test_gpus_say_whether_they_can_report(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    fake_gpu: FakeGpu,
    settings: dict[str, Any],
    code: int,
    mode: str,
    said: str,
) -> None:
    FakeNvml(gpus=[fake_gpu], **settings).install(monkeypatch)
    assert main(["attest", "gpu"]) == code
    assert said in capsys.readouterr().out
    found, value = run_json(capsys, ["attest", "gpu"])
    assert (found, value["mode"], value["usable"]) == (code, mode, code == 0)
    assert value["gpus"][0]["name"] == "NVIDIA H100 PCIe"


def test_a_host_without_a_driver_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    FakeNvml(fail={"nvmlInitWithFlags": pynvml.NVML_ERROR_DRIVER_NOT_LOADED}).install(monkeypatch)
    code, value = run_json(capsys, ["attest", "gpu"])
    assert (code, value["error"], value["fault"]) == (1, "gpu_missing", "local")
    assert main(["attest", "gpu"]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert "install the NVIDIA driver" in output.err
