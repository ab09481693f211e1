"""The child itself on a stand-in for NVIDIA's library: which figures it gives, which are absent, and how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.meter.nvml_report import Opened, Report, decode_frame
from tests.support.nvml_stub import Stub, build, needs_compiler

pytestmark = [pytest.mark.slow, needs_compiler]

COMMAND = [sys.executable, "-I", "-m", "agent.meter.nvml_child"]
FUNCTIONS = {
    "nvmlDeviceGetUtilizationRates": ("busy_ms", "busy_percent", "memory_busy_percent"),
    "nvmlDeviceGetTotalEnergyConsumption": ("energy_mj",),
    "nvmlDeviceGetMemoryInfo": ("memory_used_bytes", "memory_total_bytes"),
    "nvmlDeviceGetTemperature": ("temperature_c",),
    "nvmlDeviceGetPowerUsage": ("power_mw",),
    "nvmlDeviceGetTotalEccErrors": ("ecc_volatile", "ecc_aggregate"),
    "nvmlDeviceGetRemappedRows": ("remapped_rows", "is_remap_pending", "is_remap_failed"),
    "nvmlDeviceGetRetiredPages": ("retired_pages",),
    "nvmlDeviceGetRetiredPagesPendingStatus": ("is_retirement_pending",),
    "nvmlDeviceGetComputeRunningProcesses_v3": ("processes", "process_memory_bytes"),
    "nvmlDeviceGetMigMode": ("is_mig",),
    "nvmlDeviceGetName": ("name",),
}
"""What each function gives; None of it if it is not supported."""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def stub(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stub:
    stub = Stub(library, tmp_path)
    for name, value in stub.environment.items():
        monkeypatch.setenv(name, value)
    return stub


def ask(questions: int = 1) -> tuple[list[Opened | Report], subprocess.CompletedProcess[bytes]]:
    """Ask a child directly, without its keeper."""
    done = subprocess.run(COMMAND, input=b"?" * questions, capture_output=True, check=False)
    frames = [decode_frame(line) for line in done.stdout.splitlines()]
    return [frame for frame in frames if isinstance(frame, Opened | Report)], done


def report() -> Report:
    frames, _ = ask()
    assert isinstance(frames[-1], Report)
    return frames[-1]


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("code", [3, 13], ids=["NotSupported", "FunctionNotFound"])
def test_what_is_not_supported_is_absent_and_nothing_else(stub: Stub, function: str, code: int) -> None:
    stub.set(**{f"fail__{function}": code})
    (gpu,) = report().gpus
    absent = {name for name in gpu.__struct_fields__ if getattr(gpu, name) is None}
    assert absent == set(FUNCTIONS[function])


def test_older_drivers_tell_what_holds_the_clocks_under_another_name(stub: Stub) -> None:
    stub.set(fail__nvmlDeviceGetCurrentClocksEventReasons=13, clock_limits=64)
    assert report().gpus[0].clock_limits == 64
    stub.set(fail__nvmlDeviceGetCurrentClocksThrottleReasons=13)
    assert report().gpus[0].clock_limits is None


def test_figures_are_the_drivers(stub: Stub) -> None:
    stub.set(ecc_volatile=2, ecc_aggregate=9, rows_corrected=1, rows_uncorrected=3, remap_pending=1, pages_single=4)
    stub.set(pages_double=5, retirement_pending=1, processes=3, process_memory=7, temperature=88, busy_percent=1)
    (gpu,) = report().gpus
    assert (gpu.ecc_volatile, gpu.ecc_aggregate, gpu.temperature_c) == (2, 9, 88)
    assert (gpu.remapped_rows, gpu.is_remap_pending, gpu.is_remap_failed) == (4, True, False)
    assert (gpu.retired_pages, gpu.is_retirement_pending) == (9, True)
    assert (gpu.processes, gpu.process_memory_bytes) == (3, 21)


def test_processes_whose_memory_is_not_told_have_none(stub: Stub) -> None:
    stub.set(process_memory=str(2**64 - 1), processes=2)
    (gpu,) = report().gpus
    assert (gpu.processes, gpu.process_memory_bytes) == (2, None)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({}, "off"),
        ({"confidential": 1}, "on"),
        ({"confidential": 1, "devtools": 1}, "devtools"),
        ({"confidential": 1, "environment": 1}, "simulated"),
        ({"fail__nvmlSystemGetConfComputeState": 3}, None),
    ],
)
def test_the_confidential_mode(stub: Stub, state: dict[str, int], expected: str | None) -> None:
    stub.set(**state)
    assert report().confidential == expected


def test_an_xid_stands_in_one_report(stub: Stub) -> None:
    stub.set(xids=1)
    (_, first, second), _ = ask(2)
    assert isinstance(first, Report)
    assert isinstance(second, Report)
    assert (first.gpus[0].xids, second.gpus[0].xids) == ((79,), ())


def test_of_a_storm_of_xids_a_report_takes_some_and_tells_the_last(stub: Stub) -> None:
    stub.set(gpus=2, xids=1_000_000, xid_code=1000)
    (_, first, second), _ = ask(2)
    assert isinstance(first, Report)
    assert isinstance(second, Report)
    assert first.gpus[0].xids == tuple(range(1016, 1032))
    assert second.gpus[0].xids == tuple(range(1048, 1064))


@pytest.mark.parametrize("state", [{"fail__nvmlEventSetCreate": 3}, {"event_types": 0}])
def test_without_events_there_are_no_xids(stub: Stub, state: dict[str, int]) -> None:
    stub.set(xids=1, **state)
    assert report().gpus[0].xids == ()


def test_what_the_library_prints_is_no_answer(stub: Stub) -> None:
    stub.set(print__nvmlDeviceGetTemperature=1)
    frames, done = ask(2)
    assert len(frames) == 3
    assert b"of interest to nobody" in done.stderr


@pytest.mark.timeout(30)
def test_the_child_looks_at_the_utilisation_between_questions(stub: Stub) -> None:
    stub.set(print__nvmlDeviceGetUtilizationRates=1)
    with subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stderr is not None
        words = [child.stderr.readline() for _ in range(2)]
        child.stdin.close()
        assert all(b"of interest to nobody" in word for word in words)


def test_the_child_ends_with_its_parent(stub: Stub) -> None:
    reader, writer = os.pipe()
    with subprocess.Popen(COMMAND, stdin=reader, stdout=subprocess.PIPE) as child:
        os.close(reader)
        assert child.stdout is not None
        assert isinstance(decode_frame(child.stdout.readline().rstrip(b"\n")), Opened)
        os.close(writer)  # as the kernel does when the parent dies
        assert child.wait() == 0


def test_a_child_whose_answers_nobody_reads_ends(stub: Stub) -> None:
    with subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.readline()
        child.stdout.close()
        child.stdin.write(b"?")
        child.stdin.flush()
        assert child.stderr.read() == b""
        assert child.wait() == 0
