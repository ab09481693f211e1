"""GPUs as a source: what of a report is counted, shown and said."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.meter.counters import Deltas, advance
from agent.meter.nvml import XID_SHOWN_S, BusySums, RecentXids, sample_of
from agent.meter.nvml_busy import BusyTime
from agent.meter.nvml_notes import XIDS, lost_note, report_notes, xid_note
from agent.meter.nvml_report import GpuReading, LostGpu, Opened, Report

OPENED = Opened(driver="550.90.07")
LOST = LostGpu(index=3, uuid="GPU-3", code=15, message="GPU is lost")
S = 1_000_000_000


def busy_after(*readings: tuple[int | None, int]) -> int | None:
    busy = BusyTime()
    for percent, now_ns in readings:
        busy.take(percent, now_ns)
    return busy.ms


def notes_of(**figures: object) -> list[str]:
    return list(report_notes(Report(gpus=(GpuReading(uuid="GPU-1", **figures),))))  # type: ignore[arg-type]


def test_busy_time_is_the_utilisation_over_the_time_since_the_last_reading() -> None:
    assert busy_after((100, 0), (100, S), (50, 2 * S), (0, 3 * S)) == 1500


def test_the_first_reading_is_a_baseline_and_none_is_unknown() -> None:
    assert busy_after((100, 5 * S)) == 0
    assert busy_after() is None
    assert busy_after((None, 0), (None, S)) is None


def test_no_time_is_filled_in_over_a_pause_or_a_failed_reading() -> None:
    assert busy_after((100, 0), (100, 60 * S), (100, 61 * S)) == 1000
    assert busy_after((100, 0), (None, S), (100, 2 * S), (100, 3 * S)) == 1000


def test_a_share_beyond_all_is_no_reading() -> None:
    assert busy_after((100, 0), (4_000_000_000, S), (100, 2 * S)) == 0


@given(st.lists(st.tuples(st.integers(0, 100) | st.none(), st.integers(0, 5 * S))))
def test_busy_time_never_exceeds_the_time_nor_goes_back(steps: list[tuple[int | None, int]]) -> None:
    busy, now_ns, last = BusyTime(), 0, 0
    for percent, step_ns in steps:
        now_ns += step_ns
        busy.take(percent, now_ns)
        assert last <= (busy.ms or 0) <= now_ns // 1_000_000
        last = busy.ms or 0


def test_series_are_by_uuid_and_only_of_what_was_told() -> None:
    report = Report(gpus=(GpuReading(uuid="GPU-1", energy_mj=7, power_mw=0), GpuReading(uuid="GPU-2", busy_percent=3)))
    sample = sample_of(OPENED, report, {"GPU-2": 9}, ())
    assert sample.counters.series == {'energy_mj{uuid="GPU-1"}': 7, 'gpu_busy_ms{uuid="GPU-2"}': 9}
    assert sample.counters.start_s is None
    assert sample.gauges == {
        "gpus": 2,
        "gpus_lost": 0,
        'gpu_power_mw{uuid="GPU-1"}': 0,
        'gpu_busy_percent{uuid="GPU-2"}': 3,
    }
    assert sample.provenance == "nvml 550.90.07"
    assert sample.notes == ()


def busy_report(uuid: str, busy_ms: int | None, is_mig: bool = False) -> Report:
    return Report(gpus=(GpuReading(uuid=uuid, busy_ms=busy_ms, is_mig=is_mig),))


def test_busy_time_goes_on_over_a_new_child() -> None:
    sums, first, second = BusySums(), Opened(driver="1"), Opened(driver="1")
    assert sums.add(first, busy_report("GPU-1", 100)) == {"GPU-1": 100}
    assert sums.add(first, busy_report("GPU-1", 250)) == {"GPU-1": 250}
    assert sums.add(second, busy_report("GPU-1", 5)) == {"GPU-1": 255}
    assert sums.add(second, busy_report("GPU-1", 10)) == {"GPU-1": 260}


def test_a_gpu_that_was_away_for_a_child_goes_on_where_it_was() -> None:
    sums = BusySums()
    sums.add(Opened(driver="1"), busy_report("GPU-1", 100))
    assert sums.add(Opened(driver="1"), Report(gpus=(), lost=(LOST,))) == {}
    assert sums.add(Opened(driver="1"), busy_report("GPU-1", 7)) == {"GPU-1": 107}


def test_busy_time_in_mig_mode_is_absent() -> None:
    assert BusySums().add(OPENED, busy_report("GPU-1", 100, is_mig=True)) == {}
    assert BusySums().add(OPENED, busy_report("GPU-1", None)) == {}


def test_energy_that_starts_over_is_a_new_segment_and_is_not_filled_in() -> None:
    def reading(energy_mj: int, busy_ms: int) -> object:
        report = Report(gpus=(GpuReading(uuid="GPU-1", energy_mj=energy_mj),))
        return sample_of(OPENED, report, {"GPU-1": busy_ms}, ()).counters

    state, _ = advance(None, reading(5_000, 10), 100)  # type: ignore[arg-type]
    state, counted = advance(state, reading(5_400, 30), 110)  # type: ignore[arg-type]
    assert counted == Deltas({"energy_mj": 400, "gpu_busy_ms": 20}, False)
    state, counted = advance(state, reading(90, 45), 120)  # type: ignore[arg-type]
    assert counted == Deltas({"energy_mj": 90, "gpu_busy_ms": 15}, True)


def test_an_xid_is_shown_for_a_while_once() -> None:
    xids, report = RecentXids(), Report(gpus=(GpuReading(uuid="GPU-1", xids=(79, 45, 79)),))
    xids.add(report, 0.0)
    assert xids.notes(1.0) == (xid_note("GPU-1", 45), xid_note("GPU-1", 79))
    xids.add(Report(gpus=(), lost=(LostGpu(index=1, uuid="GPU-2", code=15, message="x", xids=(48,)),)), 100.0)
    assert xids.notes(XID_SHOWN_S + 50) == (xid_note("GPU-2", 48),)
    assert xids.notes(XID_SHOWN_S + 150) == ()


def test_xids_that_do_not_end_are_bounded() -> None:
    xids = RecentXids()
    for code in range(1000):
        xids.add(Report(gpus=(GpuReading(uuid="GPU-1", xids=(code,)),)), float(code))
    notes = xids.notes(1000.0)
    assert len(notes) == 32
    assert notes[-1] == xid_note("GPU-1", 999)


def test_every_known_xid_says_what_it_is_and_an_unknown_one_where_to_look() -> None:
    assert all(text in xid_note("GPU-1", code) for code, text in XIDS.items())
    assert "GPU has left the PCIe bus" in xid_note("GPU-1", 79)
    assert "catalogue" in xid_note("GPU-1", 4711)


def test_a_healthy_gpu_gives_nothing_to_say() -> None:
    assert notes_of(is_mig=False, ecc_volatile=0, ecc_aggregate=4, is_remap_pending=False, clock_limits=0) == []
    assert notes_of() == []


def test_a_cap_on_power_is_how_a_gpu_under_load_runs() -> None:
    assert notes_of(clock_limits=0x04 | 0x01) == []


def test_what_costs_work_or_needs_hands_is_said() -> None:
    cases: dict[str, dict[str, object]] = {
        "too hot (hardware slowdown), power brake": {"clock_limits": 0xC0},
        "2 uncorrectable memory errors": {"ecc_volatile": 2},
        "waits to be replaced": {"is_remap_pending": True},
        "could not be replaced": {"is_remap_failed": True},
        "wait to be retired": {"is_retirement_pending": True},
        "MIG mode": {"is_mig": True},
    }
    for words, figures in cases.items():
        (note,) = notes_of(**figures)
        assert note.startswith("GPU-1: ")
        assert words in note


def test_gpus_that_take_no_work_in_confidential_mode_are_said() -> None:
    def notes(**state: object) -> list[str]:
        return list(report_notes(Report(gpus=(), **state)))  # type: ignore[arg-type]

    assert notes(confidential="off", is_ready=False) == []
    assert notes(confidential="on", is_ready=True) == notes(confidential="on") == []
    (note,) = notes(confidential="on", is_ready=False)
    assert "-srs 1" in note


def test_a_lost_gpu_is_named_with_its_reason() -> None:
    sample = sample_of(OPENED, Report(gpus=(GpuReading(uuid="GPU-1"),), lost=(LOST,)), {}, ())
    assert sample.gauges["gpus_lost"] == 1
    assert sample.notes == (lost_note(LOST),)
    assert "GPU-3: lost (GPU is lost, 15)" in lost_note(LOST)
    assert "GPU 5: lost" in lost_note(LostGpu(index=5, code=999, message="Unknown Error"))
