"""The child's lines: what is a frame, and that nothing else is."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import InvalidSourceError
from agent.meter.nvml_report import (
    GPUS_MAX,
    LINE_BYTES_MAX,
    XIDS_MAX,
    Failure,
    GpuReading,
    LostGpu,
    Opened,
    Report,
    decode_frame,
    encode_frame,
)

FIGURES = [name for name in GpuReading.__struct_fields__ if name not in ("uuid", "xids")]


def line(**gpu: Any) -> bytes:
    return json.dumps({"type": "Report", "gpus": [{"uuid": "GPU-1", **gpu}]}).encode()


@pytest.mark.parametrize(
    "frame",
    [
        Opened(driver="550.90.07"),
        Failure(code=999, message="Unknown Error"),
        Report(gpus=()),
        Report(
            gpus=(GpuReading(uuid="GPU-1", energy_mj=2**48 - 1, busy_percent=100, xids=(79,)),),
            lost=(LostGpu(index=1, code=15, message="GPU is lost"),),
            confidential="on",
            is_ready=False,
        ),
    ],
)
def test_a_frame_comes_back_as_it_was(frame: Opened | Report | Failure) -> None:
    encoded = encode_frame(frame)
    assert encoded.count(b"\n") == 1
    assert decode_frame(encoded.removesuffix(b"\n")) == frame


def test_absent_is_not_zero() -> None:
    frame = decode_frame(line(energy_mj=0))
    assert isinstance(frame, Report)
    (gpu,) = frame.gpus
    assert gpu.energy_mj == 0
    assert [name for name in FIGURES if getattr(gpu, name) is not None] == ["energy_mj"]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff",
        b"{}",
        b"[]",
        b'{"a":' + b"[" * 100_000,
        b'{"type":"Report"}',
        b'{"type":"Other"}',
        b'{"type":"Opened","driver":""}',
        b'{"type":"Opened","driver":"550\\n90"}',
        b'{"type":"Opened","driver":"550.90\\n"}',
        b'{"type":"Opened","driver":"550","more":1}',
        line(busy_percent=101),
        line(busy_percent=4_000_000_000),
        line(energy_mj=-1),
        line(energy_mj=2**48),
        line(power_mw=0.5),
        line(temperature_c=256),
        line(clock_limits=2**63),
        line(name="caf\xe9"),
        line(name="x" * 97),
        line(uuid='GPU-1"} gpu_busy_ms{uuid="GPU-2'),
        line(uuid=""),
        line(xids=[1] * (XIDS_MAX + 1)),
        line(xids=[-1]),
        line(is_mig=1),
        b'{"type":"Report","gpus":[{"uuid":"GPU-1"},{"uuid":"GPU-1"}]}',
        b'{"type":"Report","gpus":[{"uuid":"GPU-1"}],"lost":[{"index":0,"uuid":"GPU-1","code":15,"message":"lost"}]}',
        b'{"type":"Report","gpus":[],"lost":[{"index":64,"code":15,"message":"lost"}]}',
        b'{"type":"Report","gpus":[],"confidential":"yes"}',
    ],
)
def test_what_cannot_be_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidSourceError, match="NVML"):
        decode_frame(raw)


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner) | st.dictionaries(st.text(), inner)


VALUES = st.recursive(st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(), nested)


@given(st.binary(max_size=200) | VALUES.map(msgspec.json.encode))
def test_whatever_comes_is_a_frame_or_our_error(raw: bytes) -> None:
    try:
        frame = decode_frame(raw)
    except InvalidSourceError:
        return
    assert isinstance(frame, Opened | Report | Failure)


def test_the_largest_report_fits_into_a_line() -> None:
    largest = dict.fromkeys(FIGURES, 2**48 - 1) | {"name": "x" * 96, "xids": (2**31 - 1,) * XIDS_MAX}
    gpus = tuple(GpuReading(uuid=f"{i:080}", **largest) for i in range(GPUS_MAX))  # type: ignore[arg-type]
    assert len(encode_frame(Report(gpus=gpus))) < LINE_BYTES_MAX
