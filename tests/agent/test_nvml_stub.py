"""GPUs as a source with the real child, on a stand-in for NVIDIA's library: what the driver does, and what follows."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

import agent.meter.nvml_process
from agent.errors import InvalidSourceError, SourceUnavailableError
from agent.meter.counters import CounterState, Deltas, Gap, advance
from agent.meter.nvml import ENERGY_MJ, GPU_BUSY_MS, NvmlSource
from agent.meter.nvml_process import ChildProcess, start_child
from agent.meter.sources import SourceSample
from tests.support.nvml_stub import Stub, build, needs_compiler

pytestmark = [pytest.mark.slow, needs_compiler]

GPU_0, GPU_1 = (f"GPU-0000000{index}-0000-0000-0000-000000000000" for index in range(2))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def stub(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stub:
    stub = Stub(library, tmp_path)
    for name, value in stub.environment.items():
        monkeypatch.setenv(name, value)
    return stub


class Started:
    """Starts real children and remembers them."""

    def __init__(self) -> None:
        self.children: list[ChildProcess] = []

    async def __call__(self) -> ChildProcess:
        child = await start_child()
        self.children.append(child)
        return child


@pytest.fixture
def started() -> Started:
    return Started()


@pytest.fixture
async def source(started: Started, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[NvmlSource]:
    monkeypatch.setattr(agent.meter.nvml_process, "PAUSE_MIN_S", 0.0)
    source = NvmlSource(started)
    yield source
    await source.aclose()
    assert all(child.poll() is not None for child in started.children)


def energy(sample: SourceSample) -> dict[str, int]:
    return {name.partition('"')[2][:12]: n for name, n in sample.counters.series.items() if name.startswith(ENERGY_MJ)}


async def test_a_healthy_host(stub: Stub, source: NvmlSource, started: Started) -> None:
    stub.set(gpus=2, energy__0=1000, energy__1=2000, busy_percent=100)
    sample = await source.sample()
    assert sample.provenance == "nvml 550.90.07"
    assert sample.notes == ()
    assert energy(sample) == {"GPU-00000000": 1000, "GPU-00000001": 2000}
    assert sample.gauges[f'gpu_power_mw{{uuid="{GPU_1}"}}'] == 412_000
    stub.set(energy__0=1500)
    busy = f'{GPU_BUSY_MS}{{uuid="{GPU_0}"}}'
    while not (sample := await source.sample()).counters.series[busy]:
        pass
    assert energy(sample)["GPU-00000000"] == 1500
    assert len(started.children) == 1


async def test_in_mig_mode_there_is_no_busy_time_but_energy(stub: Stub, source: NvmlSource) -> None:
    stub.set(gpus=2, mig__1=1)
    sample = await source.sample()
    assert f'{GPU_BUSY_MS}{{uuid="{GPU_0}"}}' in sample.counters.series
    assert f'{GPU_BUSY_MS}{{uuid="{GPU_1}"}}' not in sample.counters.series
    assert f'gpu_busy_percent{{uuid="{GPU_1}"}}' not in sample.gauges
    assert len(energy(sample)) == 2
    assert "MIG" in sample.notes[0]


async def test_gpus_that_are_not_ready_are_said(stub: Stub, source: NvmlSource) -> None:
    stub.set(confidential=1, ready=0)
    (note,) = (await source.sample()).notes
    assert "take no work" in note
    stub.set(ready=1)
    assert (await source.sample()).notes == ()


async def test_xids_are_told_by_the_gpu_that_had_them(stub: Stub, source: NvmlSource) -> None:
    stub.set(gpus=2)
    assert (await source.sample()).notes == ()
    stub.set(xids=1, xid_gpu=1, xid_code=94)
    (note,) = (await source.sample()).notes
    assert note.startswith(f"{GPU_1}: Xid 94")
    assert (await source.sample()).notes == (note,)


@pytest.mark.parametrize(
    "function",
    [
        "nvmlInitWithFlags",
        "nvmlSystemGetDriverVersion",
        "nvmlDeviceGetCount_v2",
        "nvmlDeviceGetHandleByIndex_v2",
        "nvmlEventSetWait_v2",
        "nvmlDeviceGetUtilizationRates",
        "nvmlSystemGetConfComputeState",
    ],
)
async def test_wherever_the_driver_turns_out_to_be_gone_it_is_said(
    stub: Stub, source: NvmlSource, function: str
) -> None:
    stub.set(**{f"fail__{function}": 9})
    with pytest.raises(SourceUnavailableError, match=r"no NVIDIA driver here: Driver Not Loaded \(9\)"):
        await source.sample()


async def test_a_gpu_that_is_lost_midway_is_named_and_the_other_goes_on(
    stub: Stub, source: NvmlSource, started: Started
) -> None:
    stub.set(gpus=2)
    await source.sample()
    stub.set(fail__gpu__1=15, xids=1, xid_gpu=1, xid_code=79)
    sample = await source.sample()
    assert energy(sample) == {"GPU-00000000": 1000}
    assert sample.gauges["gpus_lost"] == 1
    assert [note.partition(": ")[2][:6] for note in sample.notes] == ["lost (", "Xid 79"]
    stub.set(fail__gpu__1=None)
    sample = await source.sample()  # a new child: the old one gave the GPU up
    assert len(energy(sample)) == 2
    assert len(started.children) == 2


async def test_with_all_gpus_lost_there_is_no_reading(stub: Stub, source: NvmlSource) -> None:
    stub.set(fail__gpu=15)
    with pytest.raises(SourceUnavailableError, match=r"GPU 0: lost \(GPU is lost, 15\)"):
        await source.sample()


async def test_a_driver_that_is_loaded_anew_is_a_gap_and_then_counts_from_zero(
    stub: Stub, source: NvmlSource, started: Started
) -> None:
    state: CounterState | None = None
    stub.set(energy=1_000_000, busy_percent=0)
    state, outcome = advance(state, (await source.sample()).counters, 100)
    assert isinstance(outcome, Gap)
    stub.set(energy=1_000_700)
    state, outcome = advance(state, (await source.sample()).counters, 110)
    assert outcome == Deltas({ENERGY_MJ: 700, GPU_BUSY_MS: 0}, False)

    for function in ("nvmlInitWithFlags", "nvmlDeviceGetPowerUsage"):
        stub.set(**{f"fail__{function}": 18})
    for _ in range(2):  # the child that ran says it, and the one after it cannot begin
        with pytest.raises(SourceUnavailableError, match="was updated and not loaded anew"):
            await source.sample()

    stub.set(fail__nvmlInitWithFlags=None, fail__nvmlDeviceGetPowerUsage=None, energy=40, driver="570.86.10")
    sample = await source.sample()
    assert sample.provenance == "nvml 570.86.10"
    state, outcome = advance(state, sample.counters, 130)
    assert isinstance(outcome, Deltas)
    assert (outcome.amounts[ENERGY_MJ], outcome.reset) == (40, True)
    assert len(started.children) == 3


async def test_the_loop_goes_on_while_the_driver_hangs(
    stub: Stub, source: NvmlSource, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    await source.sample()
    stub.set(hang__nvmlDeviceGetPowerUsage=1)
    turns = 0

    async def other_work() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    with monkeypatch.context() as patch:
        patch.setattr(agent.meter.nvml_process, "ANSWER_TIMEOUT_S", 0.3)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other_work)
            with pytest.raises(SourceUnavailableError, match="did not answer"):
                await source.sample()
            nursery.cancel_scope.cancel()
    # Were the loop to wait for the driver itself, it would have had no turn, and would wait still.
    assert turns > 100
    stub.set(hang__nvmlDeviceGetPowerUsage=None)
    assert energy(await source.sample())
    assert [child.poll() for child in started.children] == [-9, None]


async def test_a_driver_that_hangs_as_it_opens_is_left_to_open(
    stub: Stub, source: NvmlSource, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.set(hang__nvmlInitWithFlags=1)
    with monkeypatch.context() as patch:
        patch.setattr(agent.meter.nvml_process, "ANSWER_TIMEOUT_S", 0.1)
        with pytest.raises(SourceUnavailableError, match="still initialises"):
            await source.sample()
        patch.setattr(agent.meter.nvml_process, "OPEN_TIMEOUT_S", 0.0)
        with pytest.raises(SourceUnavailableError, match="did not answer"):
            await source.sample()
    stub.set(hang__nvmlInitWithFlags=None)
    assert energy(await source.sample())
    assert [child.poll() for child in started.children] == [-9, None]


@pytest.mark.parametrize(
    "garbage",
    [
        {"busy_percent": 4_000_000_000},
        {"energy": str(2**64 - 1)},
        {"uuid": 'GPU-1"} energy_mj{uuid="GPU-2'},
        {"uuid": ""},
        {"temperature": 4_294_967_295},
        {"gpus": 2, "uuid": "GPU-1"},
        {"driver": ""},
    ],
)
async def test_garbage_is_refused(stub: Stub, source: NvmlSource, garbage: dict[str, int | str]) -> None:
    stub.set(**garbage)
    with pytest.raises(InvalidSourceError, match="NVML"):
        await source.sample()


async def test_a_name_that_is_not_text_is_a_failure_of_the_driver(stub: Stub, source: NvmlSource) -> None:
    stub.set(name="\xff\xfe")
    with pytest.raises(SourceUnavailableError, match="is not text"):
        await source.sample()


async def test_a_library_that_takes_its_process_down_takes_ours_not(
    stub: Stub, source: NvmlSource, started: Started
) -> None:
    await source.sample()
    stub.set(crash__nvmlDeviceGetTemperature=1)
    with pytest.raises(SourceUnavailableError, match="was ended by SIGABRT"):
        await source.sample()
    stub.set(crash__nvmlDeviceGetTemperature=None)
    assert energy(await source.sample())
    assert len(started.children) == 2


async def test_no_driver_means_a_guest_has_the_gpu(source: NvmlSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    try:
        sample = await source.sample()
    except SourceUnavailableError as error:
        assert "the GPU is passed through to the guest" in str(error) or "the driver runs and has no GPU" in str(error)
    else:
        assert sample.counters.series  # this host has a GPU


async def test_many_gpus_are_bounded(stub: Stub, source: NvmlSource) -> None:
    stub.set(gpus=1000)
    assert (await source.sample()).gauges["gpus"] == 64


async def test_the_child_hears_no_ctrl_c_of_our_terminal(stub: Stub, source: NvmlSource, started: Started) -> None:
    await source.sample()
    (child,) = started.children
    assert os.getsid(child.pid) == child.pid
